/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices that are not to be reset or removed now
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_device.h"
#include "hw/qdev-core.h"

static int is_engaged(DeviceState *dev, void *opaque)
{
    return dev->mem_reentrancy_guard.engaged_in_io ? -EBUSY : 0;
}

bool pci_device_is_engaged(PCIDevice *pci_dev)
{
    /* What is on its buses is a part of it, such as the device of virtio. */
    return qdev_walk_children(DEVICE(pci_dev), is_engaged, NULL, NULL, NULL,
                              NULL) < 0;
}
