/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guests that eject devices
 */

#include "qemu/osdep.h"
#include "hw/core/cpu.h"
#include "hw/hotplug.h"
#include "hw/pci/pci_device.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"

void pci_eject_now(PCIDevice *pci_dev)
{
    DeviceState *dev = DEVICE(pci_dev);

    hotplug_handler_unplug(qdev_get_hotplug_handler(dev), dev, &error_abort);
    object_unparent(OBJECT(dev));
}

static void pci_eject_bh(void *opaque)
{
    PCIDevice *pci_dev = opaque;

    /* It can have been ejected twice. */
    if (DEVICE(pci_dev)->realized) {
        pci_eject_now(pci_dev);
    }
    object_unref(pci_dev);
}

void pci_eject(PCIDevice *pci_dev)
{
    /* A timer or BH can have led here, too, that no guard tells of. */
    if (current_cpu && !pci_device_is_engaged(pci_dev)) {
        pci_eject_now(pci_dev);
        return;
    }
    /* Nested event loops, which the device may be in, do not run this. */
    aio_bh_schedule_oneshot(iohandler_get_aio_context(), pci_eject_bh,
                            object_ref(pci_dev));
}
