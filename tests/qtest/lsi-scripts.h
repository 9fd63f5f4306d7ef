/*
 * LSI 53C8xx: registers, and SCRIPTS programs as a series of calls
 *
 *     script_begin(&s, qts, address);
 *     select_atn(&s, target, otherwise);
 *     move(&s, MESSAGE_OUT, buffer, 1);
 *     ...
 *     interrupt(&s, DONE);
 *     script_end(&s);
 *
 * Names and encodings are those of chapters 4 and 5 of the "LSI53C895A PCI to
 * Ultra2 SCSI Controller Technical Manual".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_LSI_SCRIPTS_H
#define TESTS_QTEST_LSI_SCRIPTS_H

#include "libqtest.h"

#define SCNTL1                  0x01
#define   SCNTL1_RST            0x08
#define SCID                    0x04
#define   SCID_RRE              0x40            /* respond to reselection */
#define DSTAT                   0x0c
#define   DSTAT_IID             0x01
#define   DSTAT_SIR             0x04            /* INT was executed */
#define   DSTAT_SSI             0x08            /* single step */
#define   DSTAT_ABRT            0x10
#define   DSTAT_DFE             0x80
#define SSTAT1                  0x0e
#define   SSTAT1_PHASE          0x07
#define DSA                     0x10
#define ISTAT0                  0x14
#define   ISTAT0_DIP            0x01
#define   ISTAT0_SIP            0x02
#define   ISTAT0_INTF           0x04
#define   ISTAT0_SIGP           0x20
#define   ISTAT0_SRST           0x40
#define   ISTAT0_ABRT           0x80
#define ISTAT1                  0x15
#define   ISTAT1_SRUN           0x02            /* a script is running */
#define TEMP                    0x1c
#define DBC                     0x24            /* 24 bits, then DCMD */
#define DNAD                    0x28
#define DSP                     0x2c
#define DSPS                    0x30
#define SCRATCHA                0x34
#define DMODE                   0x38
#define   DMODE_DIOM            0x10
#define   DMODE_SIOM            0x20
#define DCNTL                   0x3b
#define   DCNTL_STD             0x04
#define   DCNTL_SSM             0x10
#define SIEN0                   0x40
#define SIST0                   0x42
#define   SIST0_RST             0x02
#define   SIST0_RSL             0x10
#define   SIST0_MA              0x80
#define CCNTL1                  0x57
#define   CCNTL1_EN64DBMV       0x01
#define   CCNTL1_EN64TIBMV      0x02
#define   CCNTL1_64TIMOD        0x04
#define SBDL                    0x58
#define SCRATCHB                0x5c
#define SCRATCHC                0x60
#define MMRS                    0xa0
#define MMWS                    0xa4
#define SFS                     0xa8
#define DRS                     0xac
#define SBMS                    0xb0
#define DBMS                    0xb4
#define CSBC                    0xdc

typedef enum Phase {
    DATA_OUT = 0,
    DATA_IN = 1,
    COMMAND = 2,
    STATUS = 3,
    MESSAGE_OUT = 6,
    MESSAGE_IN = 7,
} Phase;

#define MSG_COMMAND_COMPLETE    0x00
#define MSG_SAVE_DATA_POINTER   0x02
#define MSG_DISCONNECT          0x04
#define MSG_ABORT               0x06
#define MSG_BUS_DEVICE_RESET    0x0c
#define MSG_ABORT_TAG           0x0d
#define MSG_CLEAR_QUEUE         0x0e
#define MSG_SIMPLE_QUEUE_TAG    0x20
#define MSG_IDENTIFY            0x80
#define   IDENTIFY_DISC_PRIV    0x40

typedef struct Script {
    QTestState *qts;
    uint32_t base;
    uint32_t here;              /* address of the next instruction */
    GByteArray *code;
} Script;

static inline void script_begin(Script *s, QTestState *qts, uint32_t base)
{
    *s = (Script) {
        .qts = qts,
        .base = base,
        .here = base,
        .code = g_byte_array_new(),
    };
}

/* Write the program to guest memory */
static inline void script_end(Script *s)
{
    qtest_memwrite(s->qts, s->base, s->code->data, s->code->len);
    g_byte_array_unref(s->code);
}

static inline void script_word(Script *s, uint32_t word)
{
    word = cpu_to_le32(word);
    g_byte_array_append(s->code, (uint8_t *)&word, sizeof(word));
    s->here += sizeof(word);
}

static inline void insn(Script *s, uint32_t first, uint32_t second)
{
    script_word(s, first);
    script_word(s, second);
}

/* Let the instruction at @at jump to here */
static inline void land(Script *s, uint32_t at)
{
    stl_le_p(&s->code->data[at - s->base + 4], s->here);
}

/* Block move instructions */

static inline void move(Script *s, Phase phase, uint32_t addr, uint32_t count)
{
    insn(s, 0x08000000 | phase << 24 | count, addr);
}

static inline void move64(Script *s, Phase phase, uint64_t addr,
                          uint32_t count)
{
    move(s, phase, addr, count);
    script_word(s, addr >> 32);
}

/* @addr: of the address */
static inline void move_indirect(Script *s, Phase phase, uint32_t addr,
                                 uint32_t count)
{
    insn(s, 0x28000000 | phase << 24 | count, addr);
}

/* @offset: of the count and the address, from register DSA */
static inline void move_table(Script *s, Phase phase, int32_t offset)
{
    insn(s, 0x18000000 | phase << 24, offset & 0xffffff);
}

/* I/O instructions */

static inline void select_atn(Script *s, int target, uint32_t otherwise)
{
    insn(s, 0x41000000 | target << 16, otherwise);
}

static inline void wait_disconnect(Script *s)
{
    insn(s, 0x48000000, 0);
}

static inline void wait_reselect(Script *s, uint32_t otherwise)
{
    insn(s, 0x50000000, otherwise);
}

static inline void set_atn(Script *s)
{
    insn(s, 0x58000008, 0);
}

static inline void clear_ack(Script *s)
{
    insn(s, 0x60000040, 0);
}

/* Read/write instructions */

static inline void move_to_register(Script *s, int reg, uint8_t value)
{
    insn(s, 0x78000000 | (reg & 0x7f) << 16 | value << 8 | (reg & 0x80), 0);
}

static inline void move_sfbr_to_register(Script *s, int reg)
{
    insn(s, 0x6a000000 | (reg & 0x7f) << 16 | (reg & 0x80), 0);
}

static inline void move_register_to_sfbr(Script *s, int reg)
{
    insn(s, 0x72000000 | (reg & 0x7f) << 16 | (reg & 0x80), 0);
}

/* Transfer control instructions */

#define IF_PHASE(phase)         (0x000a0000u | (phase) << 24)
#define WHEN_PHASE(phase)       (0x000b0000u | (phase) << 24)
#define WHEN_NOT_PHASE(phase)   (0x00030000u | (phase) << 24)
#define IF_DATA(value)          (0x000c0000u | (value))
#define ALWAYS                  0x00080000u

/* Returns where it is, for land() */
static inline uint32_t jump(Script *s, uint32_t condition, uint32_t addr)
{
    insn(s, 0x80000000 | condition, addr);
    return s->here - 8;
}

static inline void return_from_call(Script *s)
{
    insn(s, 0x90000000 | ALWAYS, 0);
}

static inline void interrupt(Script *s, uint32_t condition, uint32_t value)
{
    insn(s, 0x98000000 | condition, value);
}

static inline void interrupt_on_the_fly(Script *s)
{
    insn(s, 0x98100000 | ALWAYS, 0);
}

/* Memory move, load and store instructions */

#define MEMORY_MOVE_MAX         0xffffff        /* bytes */

static inline void memory_move(Script *s, uint32_t dest, uint32_t source,
                               uint32_t count)
{
    insn(s, 0xc0000000 | count, source);
    script_word(s, dest);
}

static inline void load(Script *s, int reg, int count, uint32_t addr)
{
    insn(s, 0xe1000000 | reg << 16 | count, addr);
}

static inline void store(Script *s, int reg, int count, uint32_t addr)
{
    insn(s, 0xe0000000 | reg << 16 | count, addr);
}

#endif
