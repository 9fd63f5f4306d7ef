/*
 * Bus-master IDE as tests drive it: the PIIX3
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_IDE_DMA_UTIL_H
#define TESTS_QTEST_IDE_DMA_UTIL_H

#include "dma-test-util.h"

/* PIIX3 (82371SB) datasheet: function 1 is the IDE controller */
#define PIIX3_IDE_DEVFN         QPCI_DEVFN(1, 1)
#define PIIX3_IDE_BMIBA         4               /* BAR: bus-master registers */

/* PIIX3 datasheet, "Bus Master IDE Registers": a set for each channel */
#define BMI_CHANNEL(ch)         ((ch) * 8)
#define BMIC                    0x0             /* command */
#define   BMIC_SSBM             0x01            /* start/stop bus master */
#define   BMIC_RWCON            0x08            /* to memory (ATA read) */
#define BMIS                    0x2             /* status */
#define   BMIS_ACTIVE           0x01
#define   BMIS_ERROR            0x02
#define   BMIS_INTERRUPT        0x04
#define BMIDTP                  0x4             /* descriptor table pointer */

/*
 * "Programming Interface for Bus Master IDE Controller", revision 1.0: a
 * physical region descriptor is an address, and a count with this flag
 */
#define PRD_EOT                 0x80000000
#define PRD_SIZE                8
#define PRD_TABLE_LIMIT         4096            /* where QEMU gives up */

/* ATA task file, from the command block's base */
#define ATA_DATA                0x0
#define ATA_ERROR               0x1
#define   ATA_ERROR_ABRT        0x04
#define ATA_FEATURES            0x1
#define   ATAPI_DMA             0x01
#define ATA_SECTOR_COUNT        0x2
#define ATA_LBA_LOW             0x3
#define ATA_LBA_MID             0x4
#define ATA_LBA_HIGH            0x5
#define ATA_DEVICE              0x6
#define   ATA_DEVICE_LBA        0x40
#define   ATA_DEVICE_1          0x10
#define ATA_STATUS              0x7
#define   ATA_STATUS_ERR        0x01
#define   ATA_STATUS_DRQ        0x08
#define   ATA_STATUS_DF         0x20
#define   ATA_STATUS_DSC        0x10            /* seek complete */
#define   ATA_STATUS_DRDY       0x40
#define   ATA_STATUS_BSY        0x80
#define ATA_COMMAND             0x7
#define   ATA_WRITE_SECTORS     0x30
#define   ATA_READ_DMA          0xc8
#define   ATA_WRITE_DMA         0xca
#define   ATA_PACKET            0xa0
/* The control block has one register */
#define   ATA_CONTROL_SRST      0x04

enum { PRIMARY, SECONDARY, CHANNELS };

typedef struct IdeChannel {
    uint16_t command_block;
    uint16_t control_block;
    int irq;
} IdeChannel;

extern const IdeChannel ide_channel[CHANNELS];

/* Registers of the bus master (BMI...) and of the drives (ATA_...) */
uint8_t bmi_readb(Machine *m, int ch, int reg);
void bmi_writeb(Machine *m, int ch, int reg, uint8_t value);
uint8_t ata_readb(Machine *m, int ch, int reg);
void ata_writeb(Machine *m, int ch, int reg, uint8_t value);

/* Where a descriptor table lies, and whether its last entry says so */
typedef struct TablePlace {
    Kind kind;
    uint32_t offset;
    bool no_eot;
} TablePlace;

void table_write(Machine *m, const GArray *list, const TablePlace *at);

/* Point the bus master at a descriptor table for @list */
void bmi_prepare(Machine *m, int ch, Direction dir, const GArray *list,
                 const TablePlace *at);
void bmi_start(Machine *m, int ch, Direction dir);

/* Wait for an interrupt, or for a bus master that stands still: BMIS then */
uint8_t wait_until_idle(Machine *m, int ch);

/* Stop the bus master, which has interrupted */
void acknowledge(Machine *m, int ch);

/* Give drive 0 a command for @sectors (1 to 256) from @lba on */
void ide_issue(Machine *m, int ch, uint8_t command, uint32_t lba,
               unsigned int sectors);

/* Give a drive a packet command */
void ide_send_packet(Machine *m, int ch, uint8_t device, uint8_t features,
                     const uint8_t *packet);

#endif
