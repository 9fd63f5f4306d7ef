/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * LSI 53C8xx: data phases as scatter lists
 *
 * A command's data phase is a series of block MOVE instructions.  If the target
 * may disconnect, nobody can tell whether a MOVE has moved its data until the
 * script does something else that is seen outside of it.  So the MOVEs of a
 * command that the disk can serve directly are collected in a list.  When the
 * list covers the command, the target disconnects, the disk works on guest
 * memory itself while other commands start, and reselection leads to STATUS.
 *
 * What could give away that data is still to come is a barrier:
 *
 * - while the list is being collected, everything but further MOVEs and
 *   instructions that act on a few registers only.  No data has been moved yet:
 *   the command is continued through the device's buffer, from its first byte,
 *   and the chip waits until what the list describes has been moved
 *   ("replay").
 *
 * - after that, an interrupt or a MOVE in another phase than MESSAGE IN before
 *   the script has taken the message that says that the target disconnects.
 *   The target then does not disconnect after all, the chip waits for the data,
 *   and STATUS follows.
 *
 * - until the data is there, an access of the script to the memory in question,
 *   which the chip delays.
 *
 * This file knows lists, instructions and memory; phases, messages and waiting
 * are the chip model's.  Everything is protected by the BQL.
 */

#ifndef HW_SCSI_LSI_SG_H
#define HW_SCSI_LSI_SG_H

#include "hw/pci/pci_device.h"
#include "hw/scsi/scsi.h"
#include "qemu/interval-tree.h"
#include "qemu/queue.h"
#include "system/dma.h"
#include "system/dma-map.h"
#include "system/dma-stats.h"

/* As many elements as one host request can have */
#define LSI_SG_MAX_ENTRIES 1024

typedef enum LSISgState {
    LSI_SG_BUFFERED,    /* data goes through the device's buffer, or is done */
    LSI_SG_COLLECT,     /* MOVEs are added to the list */
    LSI_SG_REPLAY,      /* the list is served through the device's buffer */
    LSI_SG_RUN,         /* the device works on the list */
} LSISgState;

typedef struct LSISgRanges LSISgRanges;

/**
 * LSISgReq: data of one command; all zero is a buffered one
 *
 * @list: what the MOVEs have described so far, in order
 *
 * The other fields are private.
 */
typedef struct LSISgReq {
    LSISgState state;
    QEMUSGList list;

    uint64_t bytes;             /* of data that the command has */
    bool out;                   /* the device reads guest memory */
    bool unordered;             /* an address is below an earlier one */
    bool overlap;               /* found in @tree */
    dma_addr_t first;           /* bounds of the list, inclusive */
    dma_addr_t last;

    DMAMapCursor replayed;

    /* The first @indexed entries of @list by address, when that is needed */
    int indexed;
    IntervalTreeRoot tree;
    LSISgRanges *ranges;

    QLIST_ENTRY(LSISgReq) next;
} LSISgReq;

/* Pages that a script uses and no list does; a power of two */
#define LSI_SG_CLEAR_PAGES 64

/**
 * LSISg: the part of a controller that is about lists
 *
 * @enabled: property "direct-dma"
 * @can_disconnect: the target that is selected has got an IDENTIFY message that
 *                  allows it to disconnect
 * @waiting: the command that the chip is stopped for at a barrier, or NULL
 * @abort: the CPU has asked for an abort, which has to wait for the barrier
 * @offered: a request whose disconnect message has not been taken, or NULL
 * @stats: counters
 *
 * The other fields are private.
 */
typedef struct LSISg {
    bool enabled;
    bool can_disconnect;
    bool abort;
    LSISgReq *waiting;
    LSISgReq *offered;
    DMADeviceStats stats;

    QLIST_HEAD(, LSISgReq) busy;        /* all with a list */
    unsigned in_flight;
    uint64_t clear_page[LSI_SG_CLEAR_PAGES];
} LSISg;

/**
 * lsi_sg_begin: should a command's data be collected?
 * @s: the controller
 * @r: the command's state, all zero
 * @req: the command, enqueued, neither started nor complete
 * @pci: the controller as a bus master
 * @mode_ok: the chip is in a mode in which collecting cannot be noticed, and
 *           moves data to and from memory
 *
 * Returns: true if the command's MOVEs go to lsi_sg_add(); false if the command
 * is to be continued as one without a list.
 */
bool lsi_sg_begin(LSISg *s, LSISgReq *r, SCSIRequest *req, PCIDevice *pci,
                  bool mode_ok);

/**
 * lsi_sg_add: add what a MOVE describes
 * @s: the controller
 * @r: a command in %LSI_SG_COLLECT
 * @addr: bus address
 * @count: bytes, of which the command still wants as many
 */
void lsi_sg_add(LSISg *s, LSISgReq *r, dma_addr_t addr, uint32_t count);

/**
 * lsi_sg_overlaps: would the order in which the list is filled matter?
 * @r: a command in %LSI_SG_COLLECT whose list is complete
 */
bool lsi_sg_overlaps(LSISgReq *r);

/**
 * lsi_sg_run: the list is handed to the device
 * @s: the controller
 * @r: a command in %LSI_SG_COLLECT whose list is complete
 *
 * The caller then calls scsi_req_continue_sg().
 */
void lsi_sg_run(LSISg *s, LSISgReq *r);

/**
 * lsi_sg_start_replay: go on through the device's buffer
 * @s: the controller
 * @r: a command in %LSI_SG_COLLECT
 * @cause: why
 *
 * The caller then calls scsi_req_continue(), and lsi_sg_replay() for the data.
 */
void lsi_sg_start_replay(LSISg *s, LSISgReq *r, DmaBarrierCause cause);

/**
 * lsi_sg_replay: move data between the device's buffer and the list
 * @s: the controller
 * @r: a command in %LSI_SG_REPLAY
 * @buf: the buffer
 * @len: its length in bytes
 *
 * Ends %LSI_SG_REPLAY if the list ends before the buffer does.  Writes of the
 * data to other devices, or to this one, can end it too.
 *
 * Returns: the number of bytes of the buffer that were used.
 */
uint32_t lsi_sg_replay(LSISg *s, LSISgReq *r, uint8_t *buf, uint32_t len);

/**
 * lsi_sg_end: the command is complete or canceled
 * @s: the controller
 * @r: any command
 *
 * Keeps the list, which the device may still use: see lsi_sg_free().
 */
void lsi_sg_end(LSISg *s, LSISgReq *r);

/**
 * lsi_sg_free: free the list
 * @r: a command that lsi_sg_end() was called for
 */
void lsi_sg_free(LSISgReq *r);

/**
 * lsi_sg_save: save a command's list
 * @f: stream
 * @s: the controller
 * @r: a command that is not complete
 *
 * The machine is stopped: no device works on @r, but one may be about to do so
 * again (rerror=stop, werror=stop).
 */
void lsi_sg_save(QEMUFile *f, LSISg *s, LSISgReq *r);

/**
 * lsi_sg_load: load what lsi_sg_save() saved
 * @f: stream
 * @s: the controller
 * @r: a command's state, all zero
 * @req: the command
 * @pci: the controller as a bus master
 *
 * Returns: false if the stream does not make sense; @r is a buffered command
 * then.
 */
bool lsi_sg_load(QEMUFile *f, LSISg *s, LSISgReq *r, SCSIRequest *req,
                 PCIDevice *pci);

/**
 * lsi_sg_collected: is there something to hide?
 * @r: a command, or NULL
 */
static inline bool lsi_sg_collected(const LSISgReq *r)
{
    return r && r->state == LSI_SG_COLLECT && r->list.size;
}

/**
 * lsi_sg_insn_shows: can something outside of the script see the effects of an
 *                    instruction that is executed while a list is collected?
 * @r: the command on the bus
 * @insn: first word of the instruction
 * @phase: of the bus
 * @sfbr: register SFBR
 * @carry: the carry flag
 * @cause: set to what kind of instruction it is, if the answer is yes
 *
 * That the instruction may use memory of the list is another question:
 * lsi_sg_find().
 */
bool lsi_sg_insn_shows(const LSISgReq *r, uint32_t insn, int phase,
                       uint8_t sfbr, bool carry, DmaBarrierCause *cause);

/**
 * lsi_sg_insn_refuses: does an instruction show that the script does not expect
 *                      the target to disconnect?
 *
 * Parameters are those of lsi_sg_insn_shows().
 */
bool lsi_sg_insn_refuses(uint32_t insn, int phase, uint8_t sfbr, bool carry,
                         DmaBarrierCause *cause);

/**
 * lsi_sg_insn_leaves: does an instruction need a free bus?
 * @insn: first word of the instruction
 * @connected: the chip is connected: SELECT only jumps
 * @signaled: SIGP is set: WAIT RESELECT only jumps
 *
 * A target that is about to disconnect has done so then, even if the script has
 * not taken its message.
 */
bool lsi_sg_insn_leaves(uint32_t insn, bool connected, bool signaled);

/**
 * lsi_sg_find: find a command whose data an access would meet
 * @s: the controller
 * @addr: bus address of the access
 * @len: its length in bytes
 * @write: is it a write access?
 *
 * A read access does not mind a device that only reads the same memory.
 *
 * Returns: the command, or NULL
 */
LSISgReq *lsi_sg_find(LSISg *s, dma_addr_t addr, uint32_t len, bool write);

/**
 * lsi_sg_find_insn: find a command whose data an instruction's own accesses
 *                   to memory would meet
 * @s: the controller
 * @dsp: address of the instruction
 * @insn: first word of the instruction
 * @addr: second word
 * @dest: third word, if it is a memory-to-memory move
 * @dsa: register DSA
 *
 * Returns: the command, or NULL
 */
LSISgReq *lsi_sg_find_insn(LSISg *s, uint32_t dsp, uint32_t insn, uint32_t addr,
                           uint32_t dest, uint32_t dsa);

/**
 * lsi_sg_barrier: count a barrier that is not a replay
 */
void lsi_sg_barrier(LSISg *s, LSISgReq *r, DmaBarrierCause cause);

#endif
