/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Scatter lists that become known in the data phase
 *
 * Most HBAs read a command and its scatter list from guest memory together,
 * and give the list to the SCSI layer before the command starts
 * (SCSIBusInfo.get_sg_list).  A parallel SCSI chip learns where the data goes
 * only in the data phase, from its script or its driver.  Such an HBA enqueues
 * the request, and then, instead of calling scsi_req_continue():
 *
 *     if (scsi_req_can_continue_sg(req)) {
 *         ... collect exactly what the guest describes, in order ...
 *         scsi_req_continue_sg(req, &sg);
 *     }
 *
 * From there on the request is like one that had its list from the start: the
 * device moves the data between disk and guest memory by itself, does not call
 * transfer_data, and ends in SCSIBusInfo.complete, .fail or .cancel.
 *
 * An HBA that asked, and then cannot or need not hand over a list, may still
 * call scsi_req_continue() and be served through the device's buffer: until
 * one of the two is called, the device has not begun.
 */

#ifndef HW_SCSI_LATE_SG_H
#define HW_SCSI_LATE_SG_H

#include "hw/scsi/scsi.h"
#include "system/dma.h"

/**
 * scsi_req_can_continue_sg: may this request's data go directly?
 * @req: a request that scsi_req_enqueue() was called for
 *
 * True for reads and writes of a medium whose data the device neither makes up
 * nor looks at (READ, WRITE and their kin), as long as the device has not begun
 * to move data.  False for everything else, for a request that already has a
 * list, and for one that is cancelled or complete.
 *
 * Call it in @req's AioContext.  The answer holds until scsi_req_continue(),
 * scsi_req_continue_sg() or scsi_req_cancel() is called for @req.
 */
bool scsi_req_can_continue_sg(SCSIRequest *req);

/**
 * scsi_req_continue_sg: start a request's data transfer with a scatter list
 * @req: a request for which scsi_req_can_continue_sg() is true
 * @sg: where the data goes or comes from: not empty; stays the caller's, and
 *      must stay as it is until @req is complete, failed or canceled.  A
 *      request that is stopped by an I/O error (rerror=stop, werror=stop)
 *      keeps using it when the machine runs again.
 *
 * May complete @req before it returns.  The transfer ends at the shorter of
 * @sg and the command; what the command has beyond @sg is its residual.
 *
 * If the transfer fails, memory that @sg describes holds what the device had
 * moved until then; the rest of it is unchanged.
 *
 * If the transfer fails, the device reports status and sense as for a request
 * without a list.  If it is canceled, the device has stopped using @sg when
 * SCSIBusInfo.cancel is called.
 *
 * A request that is stopped by an I/O error can be migrated: the HBA saves @sg
 * with it (SCSIBusInfo.save_request, .load_request), and
 * SCSIBusInfo.get_sg_list must return the loaded list, so that the request
 * goes on with it.
 *
 * Call it in @req's AioContext.
 */
void scsi_req_continue_sg(SCSIRequest *req, QEMUSGList *sg);

#endif
