/*
 * AHCI as tests drive it: slot 0, and port 0 where none is named
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_AHCI_DMA_UTIL_H
#define TESTS_QTEST_AHCI_DMA_UTIL_H

#include "ide-dma-util.h"       /* the ATA commands */

/* AHCI 1.3.1, chapter 3: HBA memory registers, here of port 0 */
#define AHCI_ABAR               5
#define ICH9_AHCI_DEVFN         QPCI_DEVFN(0x1f, 2)     /* of a q35 */
#define GHC                     0x04
#define   GHC_AE                0x80000000
#define   GHC_HR                0x00000001
#define P0CLB                   0x100           /* command list */
#define P0FB                    0x108           /* received FIS */
#define P0IS                    0x110
#define   PXIS_OFS              0x01000000      /* overflow */
#define   PXIS_HBFS             0x20000000      /* host bus fatal error */
#define   PXIS_TFES             0x40000000      /* task file error */
#define P0CMD                   0x118
#define   PXCMD_ST              0x0001
#define   PXCMD_FRE             0x0010
#define   PXCMD_FR              0x4000
#define   PXCMD_CR              0x8000
#define P0TFD                   0x120
#define   PXTFD_BSY             0x80
#define   PXTFD_DRQ             0x08
#define   PXTFD_ERR             0x01
#define P0SCTL                  0x12c
#define   PXSCTL_DET_MASK       0xf
#define   PXSCTL_DET_COMRESET   1
#define P0SERR                  0x130
#define P0SACT                  0x134
#define P0CI                    0x138
#define PORT_REGISTERS          0x80            /* of each port */

/* AHCI 1.3.1, chapter 4: structures in memory, here in that of tables */
#define COMMAND_LIST            0
#define   CH_CFL_REGISTER_FIS   5               /* length in words */
#define   CH_WRITE              0x40
#define   CH_ATAPI              0x20
#define   CH_PRDTL_SHIFT        16
#define   CH_PRDBC              4
#define RECEIVED_FIS            0x400
#define RECEIVED_FIS_SIZE       0x100
#define COMMAND_TABLE           0x800
#define   CT_PRDT               0x80
#define   CT_ACMD               0x40
#define   PRDT_ENTRY_SIZE       16
#define PORT_TABLES             (32 * KiB)      /* for each port */

/* Serial ATA: Register FIS, host to device */
#define FIS_REGISTER_H2D        0x27
#define FIS_IS_COMMAND          0x80
#define ATA_READ_SECTORS_EXT    0x24
#define ATA_READ_DMA_EXT        0x25
#define ATA_WRITE_SECTORS_EXT   0x34
#define ATA_WRITE_DMA_EXT       0x35
#define ATA_READ_FPDMA_QUEUED   0x60
#define ATA_WRITE_FPDMA_QUEUED  0x61
#define ATA_FLUSH_CACHE_EXT     0xea

/* Registers of the HBA and of port 0 */
uint32_t hba_readl(Machine *m, int reg);
void hba_writel(Machine *m, int reg, uint32_t value);

/* Wait until a register has none of @bits, and the port no task file error */
void wait_until_clear(Machine *m, int reg, uint32_t bits);

/* Start and stop the engines of the port */
void port_start(Machine *m);
void port_stop(Machine *m);
void port_start_nth(Machine *m, int port);
void port_stop_nth(Machine *m, int port);

/* What gives up the commands of the port; they have gone once it is not busy */
void ahci_stop(Machine *m);
void ahci_comreset(Machine *m);
void ahci_hba_reset(Machine *m);
bool ahci_busy(Machine *m);

/* A command and where it is: the command table ends with the PRD table */
typedef struct AhciCommand {
    int port;
    uint8_t fis[20];
    const uint8_t *packet;      /* MMC_PACKET_SIZE bytes, or NULL */
    uint16_t flags;             /* CH_WRITE */
    const GArray *list;         /* of Entry: the PRD table */
    int prdtl;                  /* the table's length, if it is not true */
    bool no_prdt;               /* it is said to be empty */
    Kind kind;                  /* where the command table is, ... */
    uint32_t offset;            /* ... other than in TABLE */
} AhciCommand;

/* A command with 48 bits of address, maybe queued: moves the data of @req */
AhciCommand ahci_ata_command(int port, uint8_t command, const Request *req);

/* A command of MMC_PACKET_SIZE bytes that moves data by DMA */
AhciCommand ahci_packet_command(int port, const uint8_t *packet,
                                const GArray *list);

/* Acknowledge all interrupts and issue a command */
void ahci_issue(Machine *m, const AhciCommand *cmd);

/* How many bytes the HBA says that it has transferred */
uint32_t ahci_transferred(Machine *m);

/* What the HBA has written for us, bytes counted and FISes, is right */
void ahci_accept(Machine *m);
void ahci_accept_nth(Machine *m, int port);

#endif
