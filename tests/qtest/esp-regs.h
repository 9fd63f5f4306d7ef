/*
 * Registers of the ESP (NCR53C9x), and of the DMA engine of the Am53C974
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_ESP_REGS_H
#define TESTS_QTEST_ESP_REGS_H

/* Registers of the chip; those at the same offset are read or written */
#define ESP_TCLO                0x0
#define ESP_TCMID               0x1
#define ESP_FIFO                0x2
#define ESP_CMD                 0x3
#define   CMD_DMA               0x80
#define   CMD_NOP               0x00
#define   CMD_FLUSH             0x01
#define   CMD_CHIP_RESET        0x02
#define   CMD_BUS_RESET         0x03
#define   CMD_TI                0x10    /* Transfer Information */
#define   CMD_ICCS              0x11    /* Initiator Command Complete */
#define   CMD_MSGACC            0x12    /* Message Accepted */
#define   CMD_PAD               0x18    /* Transfer Pad */
#define   CMD_SELATN            0x42    /* Select with ATN */
#define ESP_STATUS              0x4
#define ESP_DESTID              0x4
#define   STATUS_PHASE          0x07
#define     PHASE_DATA_OUT      0
#define     PHASE_DATA_IN       1
#define     PHASE_STATUS        3
#define   STATUS_TC             0x10    /* transfer counter is 0 */
#define   STATUS_INT            0x80
#define ESP_INTR                0x5
#define   INTR_FC               0x08    /* function complete */
#define   INTR_BS               0x10    /* bus service */
#define   INTR_DC               0x20    /* disconnected */
#define   INTR_RST              0x80    /* SCSI bus reset */
#define ESP_CFG1                0x8
#define ESP_TCHI                0xe

/* DMA engine of the Am53C974: channel context block */
#define AMD_DMA_CMD             0x40
#define   AMD_IDLE              0x00
#define   AMD_ABORT             0x02
#define   AMD_START             0x03
#define   AMD_MDL               0x10
#define   AMD_DIR_IN            0x80
#define AMD_DMA_STC             0x44
#define AMD_DMA_SPA             0x48
#define AMD_DMA_WBC             0x4c
#define AMD_DMA_WAC             0x50
#define AMD_DMA_STATUS          0x54
#define   AMD_ERROR             0x02
#define   AMD_DONE              0x08
#define   AMD_SCSIINT           0x10
#define AMD_DMA_SMDLA           0x58
#define AMD_DMA_WMAC            0x5c
#define AMD_SBAC                0x70
#define   AMD_SBAC_STATUS       (1 << 24)   /* write 1 to clear STATUS */

#endif
