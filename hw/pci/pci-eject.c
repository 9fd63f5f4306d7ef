/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guests that eject devices
 */

#include "qemu/osdep.h"
#include "hw/hotplug.h"
#include "hw/pci/pci_device.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"

static void pci_eject_now(DeviceState *dev)
{
    hotplug_handler_unplug(qdev_get_hotplug_handler(dev), dev, &error_abort);
    object_unparent(OBJECT(dev));
}

static void pci_eject_bh(void *opaque)
{
    DeviceState *dev = opaque;

    /* It can have been ejected twice. */
    if (dev->realized) {
        pci_eject_now(dev);
    }
    object_unref(dev);
}

void pci_eject(PCIDevice *pci_dev)
{
    DeviceState *dev = DEVICE(pci_dev);

    if (!dev->mem_reentrancy_guard.engaged_in_io) {
        pci_eject_now(dev);
        return;
    }
    /* Not in a nested event loop, which the device can be waiting in. */
    aio_bh_schedule_oneshot(iohandler_get_aio_context(), pci_eject_bh,
                            object_ref(dev));
}
