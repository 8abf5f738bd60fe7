using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Hits;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Attach.Qemu;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Observe;

namespace Fleet.HostAgent.Tests;

/// <summary>What the agent makes of QEMU's words, without a QEMU.</summary>
public sealed class QemuRulesTests
{
    private const string Tree = """
        FlatView #0
         AS "I/O", root: io
         Root memory region: io
          0000000000000000-0000000000000007 (prio 0, i/o): dma-chan

        FlatView #1
         AS "cpu-smm-0", root: memory
         Root memory region: memory
          0000000000000000-000000007fffffff (prio 0, ram): wrong

        FlatView #2
         AS "memory", root: system
         AS "cpu-memory-0", root: system
         Root memory region: system
          0000000000000000-00000000000bffff (prio 0, ram): pc.ram KVM
          00000000000c0000-00000000000dffff (prio 1, rom): pc.rom
          0000000000100000-000000007effffff (prio 0, ram): pc.ram @0000000000100000 KVM
          000000007f000000-000000007fffffff (prio 1, i/o): tseg-blackhole
          00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram
          00000000fee00000-00000000feefffff (prio 4096, i/o): apic-msi
          0000000100000000-000000017fffffff (prio 0, ram): pc.ram @0000000080000000

        FlatView #3
         AS "mch", root: bus master container
         Root memory region: (none)
          No rendered FlatView
        """;

    private static readonly DateTimeOffset At = new(2026, 1, 2, 3, 4, 5, TimeSpan.Zero);

    [Fact]
    public void Tree_RamThatTheVcpusSee_IsFound() => Assert.Equal(
        [
            new QemuRamPiece(0, 0xc0000, "pc.ram", 0),
            new QemuRamPiece(0x100000, 0x7f000000, "pc.ram", 0),
            new QemuRamPiece(0xfd000000, 0xfe000000, "vga.vram", 0),
            new QemuRamPiece(0x100000000, 0x180000000, "pc.ram", 0),
        ],
        QemuRam.ParseTree(Tree));

    [Fact]
    public void HostAddress_IsReadWithTheNameOfItsBlock()
    {
        Assert.Equal(("mem", 0x7f58c7fff000UL), QemuRam.ParseHostAddress("Host virtual address for 0x0 (mem) is 0x7f58c7fff000\r\n"));
        Assert.Null(QemuRam.ParseHostAddress("No memory is mapped at address 0x4000000\r\n"));
        Assert.Null(QemuRam.ParseHostAddress("Memory at address 0xfee00000 is not RAM\r\n"));
    }

    [Fact]
    public void Place_RamCoveredByFirmwareAndSmm_IsOnePieceAllTheSame()
    {
        var placed = QemuLayout.Place([Region("0x0", 2048), Region("0x100000000", 2048)], Ram());

        Assert.Equal([0x7f0000000000UL, 0x7f0080000000UL], placed.Select(place => place.HostVirtualAddress));
    }

    [Theory]
    [InlineData("0x0", 2048, "0x100000000", 1024)]
    [InlineData("0x0", 3072, "0x100000000", 1024)]
    [InlineData("0x0", 1024, "0x100000000", 3072)]
    [InlineData("0x0", 2048, "0x200000000", 2048)]
    [InlineData("0x0", 1024, "0x40000000", 3072)]
    public void Place_OtherLayout_IsAMismatch(string first, long firstMegabytes, string second, long secondMegabytes) => Assert.Equal(
        "layout-mismatch",
        Assert.Throws<QemuRejectedException>(() => QemuLayout.Place([Region(first, firstMegabytes), Region(second, secondMegabytes)], Ram())).Code);

    [Fact]
    public void Place_HalvesOfDifferentBlocks_AreAMismatch()
    {
        var ram = Ram();
        var broken = ram with { Pieces = [.. ram.Pieces.Select(piece => piece.Start == 0x100000 ? piece with { HostVirtualAddress = piece.HostVirtualAddress + 4096 } : piece)] };

        Assert.Throws<QemuRejectedException>(() => QemuLayout.Place([Region("0x0", 2048), Region("0x100000000", 2048)], broken));
    }

    [Fact]
    [Trait("Invariant", "I8")]
    public void Failures_OnePageArmed_AreHitsOfThatPage()
    {
        var findings = Build([new QemuFailures("inject", 3, At, At.AddSeconds(1))], null, new PageKey(300, 12));

        Assert.Equal(
            new ObservedAccess(300, HitAccesses.Unknown, null, HitEvidences.Qmp, HitOutcomes.MceInjected, 3, At, At.AddSeconds(1)), Assert.Single(findings.Hits));
        Assert.Empty(findings.Poison);
        Assert.Equal(0, findings.Unplaced);
    }

    [Theory]
    [InlineData("fatal", HitOutcomes.VmKilled)]
    [InlineData("reset", HitOutcomes.VmKilled)]
    [InlineData("ignore", HitOutcomes.Unknown)]
    public void Failures_ByAction_HaveTheirOutcome(string action, string outcome) =>
        Assert.Equal(outcome, Build([new QemuFailures(action, 1, At, At)], null, new PageKey(300, 12)).Hits.Single().Outcome);

    [Fact]
    [Trait("Invariant", "I8")]
    public void Failures_SeveralPagesArmed_AreCountedAndNeverGuessed()
    {
        var findings = Build([new QemuFailures("inject", 3, At, At)], null, new PageKey(300, 12), new PageKey(400, 12));

        Assert.Empty(findings.Hits);
        Assert.Equal(3, findings.Unplaced);
        Assert.Equal(3, Build([new QemuFailures("inject", 3, At, At)], null).Unplaced);
    }

    [Fact]
    [Trait("Invariant", "I8")]
    public void Failures_WithTheLog_AreHitsOfTheirPagesAndNewPoisonElsewhere()
    {
        var findings = Build(
            [new QemuFailures("inject", 4, At, At)],
            [new QemuLogEntry(0x12c064, true), new QemuLogEntry(0x12c008, true), new QemuLogEntry(0x200000, false)],
            new PageKey(300, 12), new PageKey(400, 12));

        Assert.Equal([(300L, 2L)], findings.Hits.Select(hit => (hit.Frame, hit.Count)));
        Assert.Equal([(AgentReport.Poison, 512L, "srao")], findings.Poison.Select(report => (report.Kind, report.Frame, report.Class)));
        Assert.Equal(1, findings.Unplaced);
    }

    [Fact]
    public void Log_LinesOfFailures_AreReadOnceAndAcrossARotation()
    {
        var path = Path.GetTempFileName();
        try
        {
            const string line = "qemu-system-x86_64: Guest MCE Memory Error at QEMU addr 0x7f2d4c12c000 and GUEST addr 0x12c064 of type BUS_MCEERR_AR injected\n";
            File.WriteAllText(path, line);
            var log = new QemuLog(path);
            Assert.Empty(log.ReadNew());

            File.AppendAllText(path, "noise\nqemu-system-x86_64: warning: Guest MCE Memory Error at QEMU addr 0x7f2d and GUEST addr 0x2000 of type BUS_MCEERR_AO injected\n" + line[..40]);
            Assert.Equal([new QemuLogEntry(0x2000, false)], log.ReadNew());
            File.AppendAllText(path, line[40..]);
            Assert.Equal([new QemuLogEntry(0x12c064, true)], log.ReadNew());
            Assert.Empty(log.ReadNew());

            File.WriteAllText(path, line);
            Assert.Equal([new QemuLogEntry(0x12c064, true)], log.ReadNew());
        }
        finally
        {
            File.Delete(path);
        }
    }

    private static MemoryRegion Region(string address, long megabytes) => new(address, megabytes << 20, 4096);

    private static QemuRam Ram() => new(4L << 30, [.. QemuRam.ParseTree(Tree).Select(piece => piece with
    {
        HostVirtualAddress = piece.Name == "vga.vram" ? 0x7e0000000000
            : 0x7f0000000000 + (piece.Start < 0x100000000 ? piece.Start : piece.Start - 0x80000000),
    })]);

    private static QemuFindings Build(IReadOnlyList<QemuFailures> failures, IReadOnlyList<QemuLogEntry>? log, params PageKey[] trapped) =>
        QemuFailureReports.Build(failures, log, FrameSet.Of(trapped), "vm-1", 1);
}
