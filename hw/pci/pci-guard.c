/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices that are not to be reset or removed now
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_bridge.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pci_device.h"

static void find_engaged(PCIBus *bus, PCIDevice *pci_dev, void *opaque)
{
    bool *engaged = opaque;

    *engaged = *engaged || pci_device_is_engaged(pci_dev);
}

bool pci_device_is_engaged(PCIDevice *pci_dev)
{
    bool engaged = DEVICE(pci_dev)->mem_reentrancy_guard.engaged_in_io;

    if (!engaged && IS_PCI_BRIDGE(pci_dev)) {
        pci_for_each_device_under_bus(&PCI_BRIDGE(pci_dev)->sec_bus,
                                      find_engaged, &engaged);
    }
    return engaged;
}
