/*
 * ATAPI: reading a medium by DMA, straight into guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Memory that the host reads into cannot be taken back before the host is done
 * with it.  A guest that gives up on such a read finds the drive busy until
 * then, with the bus master active, and what it has asked for (that the bus
 * master stops, a reset) happens only then.  A read into a buffer can be
 * abandoned at once, at the price of a copy.  A drive therefore reads directly
 * for as long as the host answers, and through the buffer when it has once
 * kept the drive waiting.
 */

#ifndef HW_IDE_ATAPI_DMA_H
#define HW_IDE_ATAPI_DMA_H

#include "block/aio.h"
#include "qapi/qapi-types-block.h"

typedef struct IDEBus IDEBus;
typedef struct IDEState IDEState;

/* In milliseconds: a host that takes longer than this for a read is slow. */
#define ATAPI_DMA_SLOW_MS 1000

/**
 * AtapiDMA: state of one drive
 *
 * @packet: the command, while its data overwrites io_buffer: a command that an
 *          error has stopped is executed once more
 * @slow: the host was slow to read this medium.  Not migrated: the other host
 *        has to show for itself.
 * @in_flight: the host is reading into guest memory
 * @abandoned: the guest does not wait for that any more
 * @start_ms: when the read was submitted, %QEMU_CLOCK_REALTIME
 * @deferred: what waits for its end
 */
typedef struct AtapiDMA {
    uint8_t packet[12];
    bool slow;
    bool in_flight;
    bool abandoned;
    int64_t start_ms;
    GSList *deferred;
} AtapiDMA;

/**
 * atapi_dma_read: read straight into guest memory, if the drive may
 *
 * Call it with the BQL held, for a drive whose lba (in sectors),
 * packet_transfer_size (in bytes) and cd_sector_size say what to read, which
 * lies within the medium, and whose status is that of a packet command that
 * transfers data.  The command has been accounted for, but not ended.
 *
 * One request of the block layer reads all of the command.  It begins when the
 * bus master is ready, and ends the command: with good status, with an error
 * as -rerror wants it, or not at all if a parallel ATA bus master is given
 * less memory than the command has data, as the drive waits for more.  Memory
 * behind the data of the command stays as it is.  What a failed read leaves in
 * memory is up to the host.
 *
 * @s: the drive
 *
 * Returns: true if the read was started, false if the caller has to read
 *          through the buffer: other than 2048 bytes of each sector are
 *          wanted, or the drive is slow
 */
bool atapi_dma_read(IDEState *s);

/**
 * atapi_dma_abandon: give up a read that goes straight into guest memory
 *
 * Call it with the BQL held.  The command will end as aborted, whatever comes
 * of the read; until then the drive stays busy.  There can be several callers
 * while one read is in flight.  Draining the drive waits for @func, too.
 *
 * @bus: the bus, with at most one such read
 * @func: called when the command has ended, in the main loop with the BQL held;
 *        once, if it is given several times with the same @opaque.  Can be
 *        NULL.
 * @opaque: for @func, to live as long as the bus
 *
 * Returns: true if there is such a read, false if not and @func will not be
 *          called
 */
bool atapi_dma_abandon(IDEBus *bus, QEMUBHFunc *func, void *opaque);

/**
 * atapi_dma_medium_changed: trust the host again
 *
 * Call it with the BQL held when a medium is loaded or removed.
 *
 * @s: the drive
 */
void atapi_dma_medium_changed(IDEState *s);

#endif
