using System.Text;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Faults;
using Fleet.HostAgent.Detect;
using Fleet.HostAgent.Options;
using Fleet.HostAgent.Spool;
using Fleet.HostAgent.State;
using Fleet.Linux.Hardware;
using Fleet.Linux.Tracing;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Time.Testing;

namespace Fleet.HostAgent.Tests;

/// <summary>Which module an error is in: as exactly as the host can tell, and never a guess.</summary>
public sealed class MemoryModulesTests : IDisposable
{
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fleet-dimm-");
    private readonly FakeTimeProvider _time = new(DateTimeOffset.UnixEpoch.AddDays(1));

    private HardwareRoots Roots => new(Path.Combine(_root.FullName, "edac"), Path.Combine(_root.FullName, "dmi"));

    [Fact]
    public void Of_TwoModulesAndNoSighting_IsNobody()
    {
        Edac("mc0/dimm0", "P1-DIMMA1", 0);
        Edac("mc0/dimm1", "P1-DIMMA2", 0);
        Dmi(("P1-DIMMA1", "BANK 0", "Samsung", "S1", "M1"), ("P1-DIMMA2", "BANK 1", "Hynix", "S2", "M2"));

        Assert.Null(new MemoryModules(Roots).Of(0x1234));
        Assert.Null(new MemoryModules(Roots).Of(null));
    }

    [Fact]
    public void Of_FrameThatTheDriverLocated_IsThatModuleWithAllThatTheFirmwareKnows()
    {
        Edac("mc0/dimm0", "P1-DIMMA1", 0);
        Edac("mc0/dimm1", "P1-DIMMA2", 0);
        Dmi(("P1-DIMMA1", "BANK 0", "Samsung", "S1", "M1"), ("P1-DIMMA2", "BANK 1", "Hynix", "S2", "M2"));
        var modules = new MemoryModules(Roots);
        modules.Saw(new MemoryControllerEvent("P1-DIMMA2", 0x1234abc, 64));

        Assert.Equal(new DimmIdentity("P1-DIMMA2", "P1-DIMMA2", "S2", "Hynix", "M2"), modules.Of(0x1234));
        Assert.Null(modules.Of(0x1235));
    }

    [Theory]
    [InlineData("P1-DIMMA2", 32768)]
    [InlineData("P1-DIMMA1 or P1-DIMMA2", 64)]
    [InlineData("any memory", 64)]
    public void Of_SightingThatNamesNoOneModule_IsNobody(string label, long grain)
    {
        Edac("mc0/dimm0", "P1-DIMMA1", 0);
        Edac("mc0/dimm1", "P1-DIMMA2", 0);
        var modules = new MemoryModules(Roots);
        modules.Saw(new MemoryControllerEvent(label, 0x1234000, grain));

        Assert.Null(modules.Of(0x1234));
    }

    [Fact]
    public void Of_LabelThatTwoModulesCarry_IsNobody()
    {
        Edac("mc0/dimm0", "DIMM", 0);
        Edac("mc1/dimm0", "DIMM", 0);
        var modules = new MemoryModules(Roots);
        modules.Saw(new MemoryControllerEvent("DIMM", 0x1234000, 64));

        Assert.Null(modules.Of(0x1234));
    }

    [Fact]
    public void Of_OnlyModuleOfTheHost_NeedsNoSighting()
    {
        Dmi(("DIMM 0", "BANK 0", "Not Specified", "1234ABCD  ", ""));
        Assert.Equal(new DimmIdentity(null, "DIMM 0", "1234ABCD", null, null), new MemoryModules(Roots).Of(7));

        Edac("mc0/dimm0", "mc#0csrow#0channel#0", 0);
        Assert.Equal(new DimmIdentity("mc#0csrow#0channel#0", "DIMM 0", "1234ABCD", null, null), new MemoryModules(Roots).Of(null));
    }

    [Theory]
    [InlineData("P0_Channel0 DIMM_A1", "S1")]
    [InlineData("dimm_a1", null)]
    [InlineData("CPU_SrcID#0_MC#0_Chan#0_DIMM#0", null)]
    public void Identify_ByBankAndSlot_OnlyWhereOneSlotAnswers(string label, string? serial)
    {
        // Two sockets whose slots have the same name, told apart by their banks.
        Edac("mc0/dimm0", label, 0);
        Edac("mc0/dimm1", "other", 0);
        Dmi(("DIMM_A1", "P0_Channel0", "Samsung", "S1", "M1"), ("DIMM_A1", "P1_Channel0", "Samsung", "S2", "M1"));

        var module = Assert.Single(EdacModules.Read(Roots.Edac), module => module.Label == label);
        Assert.Equal((label, serial), (new MemoryModules(Roots).Identify(module)?.Label, new MemoryModules(Roots).Identify(module)?.Serial));
    }

    [Fact]
    public void TryReport_CountersThatGrew_AreReportedWithTheirModuleOnceAndAcrossRestarts()
    {
        Edac("mc0/dimm0", "A1", 100);
        Edac("mc0/rank1", "A2", 0);
        File.WriteAllText(Path.Combine(Roots.Edac, "mc0", "ce_noinfo_count"), "5\n");
        Dmi(("A1", "B", "Samsung", "S1", "M1"), ("A2", "B", "Samsung", "S2", "M1"));
        using (var life = new Life(this))
        {
            // What was counted before any agent looked is nobody's news.
            Assert.True(life.Corrected.TryReport());
            Assert.Empty(life.Spool.Peek(10));

            Edac("mc0/dimm0", "A1", 103);
            File.WriteAllText(Path.Combine(Roots.Edac, "mc0", "ce_noinfo_count"), "6\n");
            _time.Advance(TimeSpan.FromMinutes(1));
            Assert.True(life.Corrected.TryReport());
            Assert.True(life.Corrected.TryReport());
            Assert.Equal(
                [(3L, "A1", "S1", "corrected"), (1L, null, null, "corrected")],
                life.Spool.Peek(10).Select(report => (report.Count, report.MemoryFault!.Dimm?.Label, report.MemoryFault.Dimm?.Serial, report.MemoryFault.Kind)));
            Assert.All(life.Spool.Peek(10), report => Assert.Equal((TimeSpan.FromMinutes(1), null, AgentReport.Fault), (report.LastAt - report.FirstAt, report.Vm, report.Kind)));
            life.Spool.Acknowledge(2);
        }

        // While no agent ran, and after the driver was loaded anew.
        Edac("mc0/dimm0", "A1", 110);
        Edac("mc0/rank1", "A2", 2);
        using (var life = new Life(this))
        {
            Assert.True(life.Corrected.TryReport());
            // A restart sends again what was acknowledged; the control plane knows it by its sequence.
            Assert.Equal([(7L, "A1"), (2L, "A2")], life.Spool.Peek(10).Where(report => report.Sequence > 2).Select(report => (report.Count, report.MemoryFault!.Dimm?.Label)));
            life.Spool.Acknowledge(4);
            Edac("mc0/dimm0", "A1", 4);
            Assert.True(life.Corrected.TryReport());
            Assert.Equal([(4L, "A1")], life.Spool.Peek(10).Select(report => (report.Count, report.MemoryFault!.Dimm?.Label)));
        }
    }

    [Fact]
    public void TryReport_HostWithoutEdac_SaysNothing()
    {
        using var life = new Life(this);
        Assert.True(life.Corrected.TryReport());
        Assert.Empty(life.Spool.Peek(10));
        Assert.Null(new MemoryModules(Roots).Of(1));
    }

    public void Dispose() => _root.Delete(recursive: true);

    private void Edac(string id, string label, long corrected)
    {
        var folder = Directory.CreateDirectory(Path.Combine(Roots.Edac, id)).FullName;
        File.WriteAllText(Path.Combine(folder, "dimm_label"), label + "\n");
        File.WriteAllText(Path.Combine(folder, "dimm_ce_count"), $"{corrected}\n");
        File.WriteAllText(Path.Combine(folder, "dimm_ue_count"), "0\n");
        File.WriteAllText(Path.Combine(folder, "dimm_location"), "channel 0 slot 0 \n");
        Directory.CreateDirectory(Path.Combine(Roots.Edac, "mc0", "power"));
    }

    private void Dmi(params (string Locator, string Bank, string Maker, string Serial, string Part)[] slots)
    {
        var folder = Directory.CreateDirectory(Path.Combine(Roots.Dmi, "tables")).FullName;
        File.WriteAllBytes(Path.Combine(folder, "DMI"), [.. slots.SelectMany(slot => Structure(16384, slot.Locator, slot.Bank, slot.Maker, slot.Serial, slot.Part)), 127, 4, 0, 0, 0, 0]);
    }

    private static byte[] Structure(ushort megabytes, params string[] texts)
    {
        var formatted = new byte[0x28];
        (formatted[0], formatted[1]) = (17, (byte)formatted.Length);
        BitConverter.TryWriteBytes(formatted.AsSpan(0x0c), megabytes);
        var strings = new StringBuilder();
        byte[] places = [0x10, 0x11, 0x17, 0x18, 0x1a];
        byte number = 0;
        for (var i = 0; i < texts.Length; i++)
        {
            if (texts[i].Length > 0)
            {
                formatted[places[i]] = ++number;
                strings.Append(texts[i]).Append('\0');
            }
        }

        return [.. formatted, .. Encoding.Latin1.GetBytes(strings.ToString()), 0];
    }

    private sealed class Life : IDisposable
    {
        private readonly StateFolder _folder;

        public Life(MemoryModulesTests test)
        {
            var options = Microsoft.Extensions.Options.Options.Create(new AgentOptions { Host = "host-a", StateFolder = Path.Combine(test._root.FullName, "state") });
            _folder = new StateFolder(options);
            Spool = new ReportSpool(_folder, options, NullLogger<ReportSpool>.Instance);
            var modules = new MemoryModules(test.Roots);
            Corrected = new CorrectedErrors(test.Roots, modules, new HostFaults(new FaultJournal(_folder, NullLogger<FaultJournal>.Instance), modules, test._time), Spool, test._time);
        }

        public ReportSpool Spool { get; }

        public CorrectedErrors Corrected { get; }

        public void Dispose() => _folder.Dispose();
    }
}
