/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sparc32 DMA controller: where the data of its ESP goes
 */

#ifndef HW_SPARC_SPARC32_ESPDMA_SG_H
#define HW_SPARC_SPARC32_ESPDMA_SG_H

#include "hw/scsi/esp-sg.h"

/* The ESP's dma_opaque must be the DMADeviceState */
extern const ESPDMASGOps sparc32_espdma_sg_ops;

#endif
