/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keep the data of disks from the registers of storage controllers
 */

#include "qemu/osdep.h"
#include "hw/block/block.h"
#include "hw/qdev-core.h"
#include "hw/virtio/virtio-bus.h"
#include "system/block-backend.h"

/* The device that has the registers is not always the one that has the bus */
static DeviceState *owner_of_registers(DeviceState *dev)
{
    Object *whole;

    /* The core of an ESP is a part of the device */
    while (!dev->parent_bus &&
           (whole = object_dynamic_cast(OBJECT(dev)->parent, TYPE_DEVICE))) {
        dev = DEVICE(whole);
    }
    if (dev->parent_bus &&
        object_dynamic_cast(OBJECT(dev->parent_bus), TYPE_VIRTIO_BUS)) {
        dev = dev->parent_bus->parent;
    }
    return dev;
}

void block_guard_controller(DeviceState *controller)
{
    blk_guard_registers(&owner_of_registers(controller)->mem_reentrancy_guard);
}
