/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices that are not to be reset or removed now
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_device.h"
#include "hw/qdev-core.h"

/* The guard that is engaged for all who have disks, when requests end */
static int is_in_completion(DeviceState *dev, void *opaque)
{
    const MemReentrancyGuard *also = dev->mem_reentrancy_guard.also;

    return also && also->engaged_in_io ? -EBUSY : 0;
}

bool pci_device_is_in_completion(PCIDevice *pci_dev)
{
    return qdev_walk_children(DEVICE(pci_dev), is_in_completion, NULL, NULL,
                              NULL, NULL) < 0;
}

static int is_engaged(DeviceState *dev, void *opaque)
{
    return mem_reentrancy_guard_is_engaged(&dev->mem_reentrancy_guard) ?
           -EBUSY : 0;
}

bool pci_device_is_engaged(PCIDevice *pci_dev)
{
    /* What is on its buses is a part of it, such as the device of virtio. */
    return qdev_walk_children(DEVICE(pci_dev), is_engaged, NULL, NULL, NULL,
                              NULL) < 0;
}
