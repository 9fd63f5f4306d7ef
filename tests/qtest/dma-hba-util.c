/*
 * Storage controllers, as tests drive all of them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "ahci-dma-util.h"
#include "dma-hba-util.h"
#include "esp-regs.h"
#include "ide-dma-util.h"
#include "lsi-scripts.h"
#include "scsi-test-util.h"

#define HBA_SLOT                5

/* SBC */
#define SBC_READ_10             0x28
#define SBC_WRITE_10            0x2a
#define SBC_CDB_SIZE            10

/* SAM: status */
#define SAM_GOOD                0x00

static void sbc_read_write(uint8_t *cdb, const Request *req)
{
    memset(cdb, 0, SBC_CDB_SIZE);
    cdb[0] = req->dir == READ ? SBC_READ_10 : SBC_WRITE_10;
    stl_be_p(&cdb[2], req->start / SECTOR);
    stw_be_p(&cdb[7], req->bytes / SECTOR);
}

/* SPC, and MMC */
#define REQUEST_SENSE           0x03
#define SENSE_SIZE              18

static const uint8_t request_sense[MMC_PACKET_SIZE] = {
    [0] = REQUEST_SENSE,
    [4] = SENSE_SIZE,
};

static void mmc_read(uint8_t *packet, const Request *req)
{
    memset(packet, 0, MMC_PACKET_SIZE);
    packet[0] = MMC_READ_10;
    stl_be_p(&packet[2], req->start / CD_SECTOR);
    stw_be_p(&packet[7], req->bytes / CD_SECTOR);
}

static void nothing(Machine *m)
{
}

/* PIIX3: lane n is the first drive of channel n */

static void ide_submit(Machine *m, int ch, const Request *req)
{
    const TablePlace at = { .kind = TABLE, .offset = ch * 16 * KiB };

    bmi_prepare(m, ch, req->dir, req->list, &at);
    ide_issue(m, ch, req->dir == READ ? ATA_READ_DMA : ATA_WRITE_DMA,
              req->start / SECTOR, req->bytes / SECTOR);
    bmi_start(m, ch, req->dir);
}

static Progress ide_poll(Machine *m, int ch)
{
    uint8_t status;

    if ((bmi_readb(m, ch, BMIS) & (BMIS_ACTIVE | BMIS_INTERRUPT)) ==
        BMIS_ACTIVE) {
        return IN_FLIGHT;
    }
    status = ata_readb(m, ch, ATA_STATUS);
    if (status & (ATA_STATUS_BSY | ATA_STATUS_DRQ)) {
        return IN_FLIGHT;
    }
    acknowledge(m, ch);
    return status & ATA_STATUS_ERR ? ENDED_WITH_ERROR : ENDED_WELL;
}

static void atapi_packet(Machine *m, int ch, const uint8_t *packet,
                         const GArray *list)
{
    const TablePlace at = { .kind = TABLE, .offset = ch * 16 * KiB };

    bmi_prepare(m, ch, READ, list, &at);
    ide_send_packet(m, ch, 0, ATAPI_DMA, packet);
    bmi_start(m, ch, READ);
}

static void atapi_submit(Machine *m, int ch, const Request *req)
{
    uint8_t packet[MMC_PACKET_SIZE];

    mmc_read(packet, req);
    atapi_packet(m, ch, packet, req->list);
}

static void atapi_request_sense(Machine *m, int ch, const Request *req)
{
    atapi_packet(m, ch, request_sense, req->list);
}

static Progress atapi_poll(Machine *m, int ch)
{
    uint8_t status;

    if (qtest_inb(m->qts, ide_channel[ch].control_block) &
        (ATA_STATUS_BSY | ATA_STATUS_DRQ)) {
        return IN_FLIGHT;
    }
    status = ata_readb(m, ch, ATA_STATUS);
    acknowledge(m, ch);
    return status & ATA_STATUS_ERR ? ENDED_WITH_ERROR : ENDED_WELL;
}

/* AHCI: lane n is port n */

static void ahci_start(Machine *m)
{
    int port;

    for (port = 0; port < 2; port++) {
        port_start_nth(m, port);
        ahci_accept_nth(m, port);
    }
}

static void ahci_submit(Machine *m, int port, const Request *req)
{
    uint8_t command = req->dir == READ ? ATA_READ_DMA_EXT : ATA_WRITE_DMA_EXT;
    AhciCommand cmd = ahci_ata_command(port, command, req);

    ahci_issue(m, &cmd);
}

static void ahci_packet(Machine *m, int port, const uint8_t *packet,
                        const GArray *list)
{
    AhciCommand cmd = ahci_packet_command(port, packet, list);

    ahci_issue(m, &cmd);
}

static void ahci_cd_submit(Machine *m, int port, const Request *req)
{
    uint8_t packet[MMC_PACKET_SIZE];

    mmc_read(packet, req);
    ahci_packet(m, port, packet, req->list);
}

static void ahci_cd_request_sense(Machine *m, int port, const Request *req)
{
    ahci_packet(m, port, request_sense, req->list);
}

static Progress ahci_poll(Machine *m, int port)
{
    int regs = port * PORT_REGISTERS;
    Progress progress = ENDED_WELL;

    if (hba_readl(m, regs + P0CI) & 1 &&
        !(hba_readl(m, regs + P0IS) & PXIS_TFES)) {
        return IN_FLIGHT;
    }
    if (hba_readl(m, regs + P0TFD) & PXTFD_ERR) {
        /* The port stands still: AHCI 1.3.1, section 6.2.2.1 */
        hba_writel(m, regs + P0IS, ~0u);
        port_stop_nth(m, port);
        port_start_nth(m, port);
        progress = ENDED_WITH_ERROR;
    }
    ahci_accept_nth(m, port);
    return progress;
}

/*
 * LSI 53C895A: lane n is target n with tag n
 *
 * Either a script runs, or the chip has stopped and waits for us: then it is
 * given the next command, or is told to wait for a target that reselects it.
 */

/* Guest memory out of the way of all regions */
#define LSI_LIBRARY             (4 * MiB)
#define LSI_BLOCKS              (LSI_LIBRARY + 64 * KiB)
#define   LSI_BLOCK_SIZE        256             /* by tag */
#define LSI_SCRATCH             (LSI_LIBRARY + 12 * KiB)
#define LSI_LANE(lane)          (LSI_LIBRARY + 16 * KiB + (lane) * 4 * KiB)
#define   LSI_LANE_CDB          8
#define   LSI_LANE_STATUS       24
#define   LSI_LANE_MSG_IN       28
#define   LSI_LANE_SCRIPT       64
#define LSI_CTEST2              0x1a            /* reading it clears SIGP */
#define LSI_REGISTERS_BAR       1

/* Where scripts stop: one of these, plus the lane */
#define LSI_STARTED             0x5700
#define LSI_DONE                0xd000
#define LSI_UNEXPECTED          0xbad
#define LSI_SIGNALLED           0x516

typedef struct LsiLane {
    uint32_t start;
    uint32_t dispatch;
    bool to_be_started;
    bool active;
} LsiLane;

static struct {
    LsiLane lane[HBA_MAX_LANES];
    uint32_t idle;
    bool running;
    bool waiting;               /* the script that runs is the idle one */
} lsi;

static void lsi_abort(Machine *m)
{
    qpci_io_writeb(m->hba, m->hba_bar, ISTAT0, ISTAT0_SRST);
    qpci_io_writeb(m->hba, m->hba_bar, ISTAT0, 0);
}

static uint8_t lsi_readb(Machine *m, int reg)
{
    return qpci_io_readb(m->hba, m->hba_bar, reg);
}

static void lsi_run(Machine *m, uint32_t addr)
{
    lsi.running = true;
    lsi.waiting = addr == lsi.idle;
    qpci_io_writel(m->hba, m->hba_bar, DSP, addr);
}

static void lsi_start(Machine *m)
{
    uint32_t otherwise;
    Script s;

    memset(&lsi, 0, sizeof(lsi));

    /* What the reselecting target says selects the block to go on with */
    script_begin(&s, m->qts, LSI_LIBRARY);
    lsi.idle = s.here;
    wait_reselect(&s, 0);
    otherwise = s.here - 8;
    move(&s, MESSAGE_IN, LSI_SCRATCH, 1);
    clear_ack(&s);
    move(&s, MESSAGE_IN, LSI_SCRATCH, 1);
    clear_ack(&s);
    move(&s, MESSAGE_IN, LSI_SCRATCH, 1);
    clear_ack(&s);
    move_sfbr_to_register(&s, TEMP + 1);
    return_from_call(&s);
    land(&s, otherwise);
    interrupt(&s, ALWAYS, LSI_SIGNALLED);
    script_end(&s);
    qpci_io_writel(m->hba, m->hba_bar, TEMP, LSI_BLOCKS);
}

static void lsi_submit(Machine *m, int n, const Request *req)
{
    const uint8_t msg[] = { MSG_IDENTIFY | IDENTIFY_DISC_PRIV,
                            MSG_SIMPLE_QUEUE_TAG, n };
    LsiLane *lane = &lsi.lane[n];
    uint32_t at = LSI_LANE(n);
    Phase phase = req->dir == READ ? DATA_IN : DATA_OUT;
    uint8_t cdb[SBC_CDB_SIZE];
    uint32_t when_status, if_data, if_disconnect;
    Script s;
    int i;

    sbc_read_write(cdb, req);
    qtest_memwrite(m->qts, at, msg, sizeof(msg));
    qtest_memwrite(m->qts, at + LSI_LANE_CDB, cdb, sizeof(cdb));
    qtest_writeb(m->qts, at + LSI_LANE_STATUS, 0xff);

    script_begin(&s, m->qts, at + LSI_LANE_SCRIPT);
    lane->dispatch = s.here;
    when_status = jump(&s, WHEN_PHASE(STATUS), 0);
    if_data = jump(&s, IF_PHASE(phase), 0);
    jump(&s, IF_PHASE(MESSAGE_IN), s.here + 16);
    interrupt(&s, ALWAYS, LSI_UNEXPECTED);
    move(&s, MESSAGE_IN, at + LSI_LANE_MSG_IN, 1);
    if_disconnect = jump(&s, IF_DATA(MSG_DISCONNECT), 0);
    clear_ack(&s);
    jump(&s, ALWAYS, lane->dispatch);

    land(&s, if_disconnect);
    clear_ack(&s);
    wait_disconnect(&s);
    interrupt(&s, ALWAYS, LSI_STARTED + n);

    land(&s, if_data);
    for (i = 0; i < req->list->len; i++) {
        const Entry *e = &g_array_index(req->list, Entry, i);

        move(&s, phase, entry_address(m, e), e->len);
    }
    jump(&s, ALWAYS, lane->dispatch);

    land(&s, when_status);
    move(&s, STATUS, at + LSI_LANE_STATUS, 1);
    move(&s, MESSAGE_IN, at + LSI_LANE_MSG_IN, 1);
    clear_ack(&s);
    wait_disconnect(&s);
    interrupt(&s, ALWAYS, LSI_DONE + n);

    lane->start = s.here;
    select_atn(&s, n, lsi.idle + 8);
    move(&s, MESSAGE_OUT, at, sizeof(msg));
    move(&s, COMMAND, at + LSI_LANE_CDB, sizeof(cdb));
    jump(&s, ALWAYS, lane->dispatch);
    g_assert_cmpuint(s.here, <=, LSI_LANE(n + 1));
    script_end(&s);

    script_begin(&s, m->qts, LSI_BLOCKS + n * LSI_BLOCK_SIZE);
    jump(&s, ALWAYS, lane->dispatch);
    script_end(&s);

    lane->to_be_started = lane->active = true;
    if (lsi.running && lsi.waiting) {
        qpci_io_writeb(m->hba, m->hba_bar, ISTAT0, ISTAT0_SIGP);
    }
}

/* The chip has stopped: why? */
static void lsi_event(Machine *m)
{
    uint8_t sist0 = lsi_readb(m, SIST0);
    uint8_t dstat = lsi_readb(m, DSTAT) & ~DSTAT_DFE;
    uint32_t value = qpci_io_readl(m->hba, m->hba_bar, DSPS);
    uint32_t dsp = qpci_io_readl(m->hba, m->hba_bar, DSP);
    int n;

    lsi_readb(m, LSI_CTEST2);
    lsi.running = false;
    if (sist0 & SIST0_MA) {
        /* The target leaves the data phase early, to tell of an error */
        n = (dsp - LSI_LANE(0)) / (LSI_LANE(1) - LSI_LANE(0));
        g_assert_cmpint(n, <, HBA_MAX_LANES);
        lsi_run(m, lsi.lane[n].dispatch);
        return;
    }
    g_assert_cmphex(sist0, ==, 0);
    g_assert_cmphex(dstat, ==, DSTAT_SIR);
    n = value & 0xff;
    switch (value & ~0xff) {
    case LSI_STARTED:
        lsi.lane[n].to_be_started = false;
        break;
    case LSI_DONE:
        lsi.lane[n].to_be_started = lsi.lane[n].active = false;
        break;
    default:
        g_assert_cmphex(value, ==, LSI_SIGNALLED);
    }
}

static Progress lsi_poll(Machine *m, int lane)
{
    int n;

    if (lsi.running && lsi_readb(m, ISTAT0) & (ISTAT0_DIP | ISTAT0_SIP)) {
        lsi_event(m);
    }
    for (n = 0; n < HBA_MAX_LANES && !lsi.running; n++) {
        if (lsi.lane[n].to_be_started) {
            lsi_run(m, lsi.lane[n].start);
        }
    }
    for (n = 0; n < HBA_MAX_LANES && !lsi.running; n++) {
        if (lsi.lane[n].active) {
            lsi_run(m, lsi.idle);
        }
    }
    if (lsi.lane[lane].active) {
        return IN_FLIGHT;
    }
    return qtest_readb(m->qts, LSI_LANE(lane) + LSI_LANE_STATUS) == SAM_GOOD ?
           ENDED_WELL : ENDED_WITH_ERROR;
}

/* Am53C974: one target, and one TI command for each entry of the list */

static struct {
    const Request *req;
    int entry;
    enum { ESP_DATA, ESP_STATUS_PHASE, ESP_MESSAGE } step;
    uint8_t status;
} esp;

static void esp_writeb(Machine *m, int reg, uint8_t value)
{
    qpci_io_writeb(m->hba, m->hba_bar, reg * 4, value);
}

static uint8_t esp_readb(Machine *m, int reg)
{
    return qpci_io_readb(m->hba, m->hba_bar, reg * 4);
}

static void amd_writel(Machine *m, int reg, uint32_t value)
{
    qpci_io_writel(m->hba, m->hba_bar, reg, value);
}

static void esp_start(Machine *m)
{
    amd_writel(m, AMD_SBAC, AMD_SBAC_STATUS);
    esp_writeb(m, ESP_CMD, CMD_CHIP_RESET);
    esp_writeb(m, ESP_CMD, CMD_NOP);
}

static void esp_submit(Machine *m, int lane, const Request *req)
{
    uint8_t cdb[SBC_CDB_SIZE];
    int i;

    esp.req = req;
    esp.entry = 0;
    esp.step = ESP_DATA;
    sbc_read_write(cdb, req);
    esp_writeb(m, ESP_CMD, CMD_FLUSH);
    esp_writeb(m, ESP_DESTID, 0);
    esp_writeb(m, ESP_FIFO, MSG_IDENTIFY);
    for (i = 0; i < sizeof(cdb); i++) {
        esp_writeb(m, ESP_FIFO, cdb[i]);
    }
    esp_writeb(m, ESP_CMD, CMD_SELATN);
}

static void esp_transfer(Machine *m, const Entry *e)
{
    uint8_t direction = esp.req->dir == READ ? AMD_DIR_IN : 0;

    amd_writel(m, AMD_DMA_CMD, direction | AMD_IDLE);
    amd_writel(m, AMD_DMA_STC, e->len);
    amd_writel(m, AMD_DMA_SPA, entry_address(m, e));
    esp_writeb(m, ESP_TCLO, e->len);
    esp_writeb(m, ESP_TCMID, e->len >> 8);
    esp_writeb(m, ESP_TCHI, e->len >> 16);
    esp_writeb(m, ESP_CMD, CMD_TI | CMD_DMA);
    amd_writel(m, AMD_DMA_CMD, direction | AMD_START);
}

static Progress esp_poll(Machine *m, int lane)
{
    uint8_t status = esp_readb(m, ESP_STATUS);

    if (!(status & STATUS_INT)) {
        return IN_FLIGHT;
    }
    if (esp_readb(m, ESP_INTR) & INTR_DC && esp.step != ESP_MESSAGE) {
        return ENDED_WITH_ERROR;
    }
    switch (esp.step) {
    case ESP_DATA:
        if ((status & STATUS_PHASE) == PHASE_STATUS) {
            esp.step = ESP_STATUS_PHASE;
            esp_writeb(m, ESP_CMD, CMD_ICCS);
            return IN_FLIGHT;
        }
        g_assert_cmpint(esp.entry, <, esp.req->list->len);
        esp_transfer(m, &g_array_index(esp.req->list, Entry, esp.entry++));
        return IN_FLIGHT;
    case ESP_STATUS_PHASE:
        esp.status = esp_readb(m, ESP_FIFO);
        esp_readb(m, ESP_FIFO);
        esp.step = ESP_MESSAGE;
        esp_writeb(m, ESP_CMD, CMD_MSGACC);
        return IN_FLIGHT;
    default:
        return esp.status == SAM_GOOD ? ENDED_WELL : ENDED_WITH_ERROR;
    }
}

/* virtio-scsi: lane n is controller n, each in a thread of its own */

#define VIRTIO_SLOT(n)          (HBA_SLOT + 1 + (n))

static QGuestAllocator virtio_alloc;
static VirtioScsi virtio_scsi[HBA_MAX_LANES];

static void virtio_stop(Machine *m)
{
    int n;

    if (virtio_scsi[0].pci) {
        for (n = 0; n < HBA_MAX_LANES; n++) {
            virtio_scsi_free(&virtio_scsi[n], &virtio_alloc);
        }
        alloc_destroy(&virtio_alloc);
        memset(virtio_scsi, 0, sizeof(virtio_scsi));
    }
}

static void virtio_start(Machine *m)
{
    int n;

    virtio_stop(m);
    alloc_init(&virtio_alloc, 0, VIRTIO_MEMORY_BEGIN, VIRTIO_MEMORY_END,
               4 * KiB);
    for (n = 0; n < HBA_MAX_LANES; n++) {
        virtio_scsi_start(m, &virtio_scsi[n], VIRTIO_SLOT(n), &virtio_alloc);
    }
}

static void virtio_migrated(Machine *m)
{
    int n;

    for (n = 0; n < HBA_MAX_LANES; n++) {
        virtio_scsi[n].pci->pdev->bus = m->pci;
    }
}

static void virtio_submit(Machine *m, int lane, const Request *req)
{
    g_autofree SGEntry *list = sg_entries(m, req);
    uint8_t cdb[SBC_CDB_SIZE];

    sbc_read_write(cdb, req);
    virtio_scsi_post(m, &virtio_scsi[lane], cdb, sizeof(cdb), req->dir, list,
                     req->list->len);
}

static Progress virtio_poll(Machine *m, int lane)
{
    struct virtio_scsi_cmd_resp resp;

    if (!virtio_scsi_poll(m, &virtio_scsi[lane], &resp)) {
        return IN_FLIGHT;
    }
    return resp.response == VIRTIO_SCSI_S_OK && resp.status == SCSI_GOOD ?
           ENDED_WELL : ENDED_WITH_ERROR;
}

/* All of them */

const HbaType hba_types[HBA_TYPES] = {
    {
        .name = "ide",
        .controller = "",
        .disk = "ide-hd,bus=ide.%1$d",
        .qdev = "piix3-ide",
        .devfn = PIIX3_IDE_DEVFN,
        .bar = PIIX3_IDE_BMIBA,
        .lanes = 2,
        .even = true,
        .max_entries = 120,
        .max_mmio = 4 * KiB,
        .start = nothing,
        .migrated = nothing,
        .submit = ide_submit,
        .poll = ide_poll,
        .stop = nothing,
    }, {
        .name = "atapi",
        .controller = "",
        .disk = "ide-cd,bus=ide.%1$d",
        .qdev = "piix3-ide",
        .devfn = PIIX3_IDE_DEVFN,
        .bar = PIIX3_IDE_BMIBA,
        .lanes = 2,
        .cd = true,
        .even = true,
        .max_entries = 120,
        .max_mmio = 4 * KiB,
        .start = nothing,
        .migrated = nothing,
        .submit = atapi_submit,
        .request_sense = atapi_request_sense,
        .poll = atapi_poll,
        .stop = nothing,
    }, {
        .name = "ahci",
        .controller = "-device ahci,id=hba,addr=5 ",
        .disk = "ide-hd,bus=hba.%1$d",
        .qdev = "ich9-ahci",
        .devfn = QPCI_DEVFN(HBA_SLOT, 0),
        .bar = AHCI_ABAR,
        .lanes = 2,
        .max_entries = 120,
        .max_mmio = 4 * KiB,
        .start = ahci_start,
        .migrated = nothing,
        .submit = ahci_submit,
        .poll = ahci_poll,
        .stop = nothing,
    }, {
        .name = "ahci-cd",
        .controller = "-device ahci,id=hba,addr=5 ",
        .disk = "ide-cd,bus=hba.%1$d",
        .qdev = "ich9-ahci",
        .devfn = QPCI_DEVFN(HBA_SLOT, 0),
        .bar = AHCI_ABAR,
        .lanes = 2,
        .cd = true,
        .max_entries = 120,
        .max_mmio = 4 * KiB,
        .start = ahci_start,
        .migrated = nothing,
        .submit = ahci_cd_submit,
        .request_sense = ahci_cd_request_sense,
        .poll = ahci_poll,
        .stop = nothing,
    }, {
        .name = "lsi",
        .controller = "-device lsi53c895a,id=hba,addr=5 ",
        .disk = "scsi-hd,bus=hba.0,scsi-id=%1$d",
        .qdev = "lsi53c895a",
        .devfn = QPCI_DEVFN(HBA_SLOT, 0),
        .bar = LSI_REGISTERS_BAR,
        .lanes = 2,
        .unpluggable = true,
        .max_entries = 120,
        .max_mmio = 4 * KiB,
        .start = lsi_start,
        .migrated = nothing,
        .submit = lsi_submit,
        .poll = lsi_poll,
        .abort = lsi_abort,
        .stop = nothing,
    }, {
        .name = "esp",
        .controller = "-device am53c974,id=hba,addr=5 ",
        .disk = "scsi-hd,bus=hba.0,scsi-id=%1$d",
        .qdev = "am53c974",
        .devfn = QPCI_DEVFN(HBA_SLOT, 0),
        .bar = 0,
        .lanes = 1,
        .unpluggable = true,
        .even = true,
        .max_entries = 4,
        .max_mmio = 4 * KiB,
        .start = esp_start,
        .migrated = nothing,
        .submit = esp_submit,
        .poll = esp_poll,
        .abort = esp_start,
        .stop = nothing,
    }, {
        .name = "virtio-scsi",
        .controller = "-object iothread,id=thread0 "
                      "-object iothread,id=thread1 "
                      "-device virtio-scsi-pci,id=hba0,addr=6,"
                      "iothread=thread0 "
                      "-device virtio-scsi-pci,id=hba1,addr=7,"
                      "iothread=thread1 ",
        .disk = "scsi-hd,bus=hba%1$d.0",
        .devfn = QPCI_DEVFN(VIRTIO_SLOT(0), 0),
        .lanes = 2,
        .unpluggable = true,
        .max_entries = 120,
        .max_mmio = 0,              /* out of an IOThread's reach */
        .start = virtio_start,
        .migrated = virtio_migrated,
        .submit = virtio_submit,
        .poll = virtio_poll,
        .stop = virtio_stop,
    }
};

Setup hba_setup(const HbaType *hba, const char *device, const char *drive,
                const char *file, const char *machine)
{
    g_autoptr(GString) line = g_string_new(hba->controller);
    Setup setup = {
        .blockdev = g_intern_string(file ?: ""),
        .disks = hba->lanes,
        .hba_devfn = hba->devfn,
        .hba_bar = hba->bar,
    };
    int lane;

    for (lane = 0; lane < hba->lanes; lane++) {
        g_string_append(line, "-device ");
        g_string_append_printf(line, hba->disk, lane);
        g_string_append_printf(line, ",id=disk%d,drive=drive%d%s ", lane,
                               lane, device ?: "");
        setup.drive[lane] = g_intern_string(drive ?: "");
    }
    g_string_append(line, machine ?: "");
    setup.machine = g_intern_string(line->str);
    return setup;
}

Progress hba_poll(Machine *m, const HbaType *hba, int lane)
{
    Progress progress = hba->poll(m, lane);

    if (progress == IN_FLIGHT) {
        /* Throttled drives wait for this, and so does a chip that pauses */
        qtest_clock_step(m->qts, NANOSECONDS_PER_SECOND / 1000);
    }
    return progress;
}

Progress hba_wait(Machine *m, const HbaType *hba, int lane)
{
    int64_t deadline = patience_ends();
    Progress progress;

    while ((progress = hba_poll(m, hba, lane)) == IN_FLIGHT) {
        wait_before_poll(deadline, "end of command");
    }
    return progress;
}

void hba_clear_attention(Machine *m, const HbaType *hba)
{
    g_autofree char *list = g_strdup_printf("r%d@0",
                                            hba->cd ? CD_SECTOR : SECTOR);
    int lane, attempt;

    for (lane = 0; lane < hba->lanes; lane++) {
        bool well = false;

        for (attempt = 0; !well; attempt++) {
            Request req;

            g_assert_cmpint(attempt, <, 5);
            request_init(m, &req, READ, lane, 0, 0, list);
            hba->submit(m, lane, &req);
            well = hba_wait(m, hba, lane) == ENDED_WELL;
            if (well) {
                expect_transfer(m, &req, req.bytes);
            } else if (hba->request_sense) {
                /* Until it is asked, the drive does nothing else */
                hba->request_sense(m, lane, &req);
                hba_wait(m, hba, lane);
                region_accept(m, RAM, 0, SENSE_SIZE);
            }
            request_free(&req);
        }
    }
}
