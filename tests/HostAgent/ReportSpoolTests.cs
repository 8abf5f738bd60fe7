using System.Diagnostics.Metrics;
using Fleet.Contracts.Agents;
using Fleet.HostAgent.Metrics;
using Fleet.HostAgent.Options;
using Fleet.HostAgent.Spool;
using Fleet.HostAgent.State;
using Fleet.Linux;
using Fleet.Linux.Processes;
using Microsoft.Extensions.Logging.Abstractions;

namespace Fleet.HostAgent.Tests;

public sealed class ReportSpoolTests : IDisposable
{
    private static readonly ProcessIdentity Vmm = ProcessIdentity.Of(Environment.ProcessId)!;
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fleet-spool-");

    private string FilePath => Path.Combine(_root.FullName, "spool", "reports");

    [Fact]
    [Trait("Invariant", "I2")]
    public void Append_ThenReopen_KeepsReportsOrderIdentityAndWatermark()
    {
        string spoolId;
        using (var opened = Open())
        {
            spoolId = opened.Spool.SpoolId;
            Assert.True(opened.Spool.TryAppend([Report(1), Report(2)], new VmmWatermark(Vmm, 7)));
            Assert.True(opened.Spool.TryAppend([Report(3)], new VmmWatermark(Vmm, 9)));
        }

        using var again = Open();
        Assert.Equal(spoolId, again.Spool.SpoolId);
        Assert.Equal([(1L, 1L), (2, 2), (3, 3)], again.Spool.Peek(10).Select(report => (report.Sequence, report.Frame)));
        Assert.Equal(9, again.Spool.LastEvent(Vmm));
        again.Spool.TryAppend([Report(4)], new VmmWatermark(Vmm, 10));
        Assert.Equal(4, again.Spool.Peek(10)[^1].Sequence);
    }

    /// <summary>The file cut at every byte, as a power loss may: each append is there whole or not at all, and the queue goes on.</summary>
    [Fact]
    [Trait("Invariant", "I2")]
    public void File_CutAnywhere_HoldsWholeAppendsOnly()
    {
        var lengths = new List<long>();
        using (var opened = Open())
        {
            lengths.Add(new FileInfo(FilePath).Length);
            for (var i = 1; i <= 3; i++)
            {
                opened.Spool.TryAppend([Report(2 * i), Report((2 * i) + 1)], new VmmWatermark(Vmm, i));
                lengths.Add(new FileInfo(FilePath).Length);
            }
        }

        var whole = File.ReadAllBytes(FilePath);
        for (var cut = (int)lengths[0]; cut <= whole.Length; cut++)
        {
            File.WriteAllBytes(FilePath, whole[..cut]);
            using var opened = Open();
            var appends = lengths.Count(length => length <= cut) - 1;
            Assert.Equal(2 * appends, opened.Spool.Count);
            Assert.Equal(appends, opened.Spool.LastEvent(Vmm));
            Assert.True(opened.Spool.TryAppend([Report(99)], new VmmWatermark(Vmm, 50)));
            Assert.Equal((2 * appends) + 1, opened.Spool.Peek(10)[^1].Sequence);
        }
    }

    [Fact]
    public void File_DamagedInTheMiddle_KeepsTheRestUnderANewSpoolId()
    {
        string before;
        using (var opened = Open())
        {
            before = opened.Spool.SpoolId;
            opened.Spool.TryAppend([Report(1)], new VmmWatermark(Vmm, 1));
            opened.Spool.TryAppend([Report(2)], new VmmWatermark(Vmm, 2));
        }

        var lines = File.ReadAllLines(FilePath);
        lines[1] = lines[1].Replace("\"frame\":1", "\"frame\":5", StringComparison.Ordinal);
        File.WriteAllText(FilePath, string.Join('\n', lines) + "\n");

        using var again = Open();
        Assert.NotEqual(before, again.Spool.SpoolId);
        Assert.Equal([(1L, 2L)], again.Spool.Peek(10).Select(report => (report.Sequence, report.Frame)));
    }

    [Fact]
    public void Acknowledge_UpTo_RemovesThoseAndARestartOnlyRepeatsThem()
    {
        using (var opened = Open())
        {
            opened.Spool.TryAppend([Report(1), Report(2), Report(3)], new VmmWatermark(Vmm, 1));
            opened.Spool.Acknowledge(2);
            Assert.Equal([3L], opened.Spool.Peek(10).Select(report => report.Sequence));
        }

        using var again = Open();
        Assert.Equal([1L, 2, 3], again.Spool.Peek(10).Select(report => report.Sequence));
    }

    [Fact]
    public async Task TryAppend_Full_TakesNothingUntilAcknowledged()
    {
        using var opened = Open(bytes: 64 * 1024);
        var reports = Enumerable.Range(0, 50).Select(i => Report(i)).ToList();
        var appended = 0;
        while (opened.Spool.TryAppend(reports, new VmmWatermark(Vmm, appended + 1)))
        {
            appended++;
            Assert.True(appended < 1000);
        }

        Assert.Equal(50 * appended, opened.Spool.Count);
        Assert.Equal(appended, opened.Spool.LastEvent(Vmm));
        var changed = opened.Spool.WhenChangedAsync();
        opened.Spool.Acknowledge(50L * appended);
        await changed;

        Assert.True(opened.Spool.TryAppend(reports, new VmmWatermark(Vmm, 1000)));
        Assert.Equal((50L * appended) + 1, opened.Spool.Peek(1)[0].Sequence);
    }

    /// <summary>The file is up to 64 MiB, and VMMs try again and again.</summary>
    [Fact]
    public void TryAppend_RefusedAgain_WritesNothingUntilSomethingLeft()
    {
        using var opened = Open(bytes: 64 * 1024);
        var reports = Enumerable.Range(0, 50).Select(i => Report(i)).ToList();
        while (opened.Spool.TryAppend(reports))
        {
        }

        // Open, so that no new file can get its inode.
        using var held = FileDescriptor.OpenRead(FilePath);
        var length = new FileInfo(FilePath).Length;
        Assert.False(opened.Spool.TryAppend(reports));
        using (var now = FileDescriptor.OpenRead(FilePath))
        {
            Assert.Equal((FileDescriptorInfo.Inode(held), length), (FileDescriptorInfo.Inode(now), new FileInfo(FilePath).Length));
        }

        opened.Spool.Acknowledge(60);
        Assert.True(opened.Spool.TryAppend([Report(99)]));
        Assert.Equal(61, opened.Spool.Peek(1)[0].Sequence);
    }

    /// <summary>Whoever counts may wait for somebody who looks at the spool.</summary>
    [Fact]
    public void TryAppend_WhileItsHitsAreCounted_CanBeLookedAt()
    {
        using var opened = Open();
        var thread = Environment.CurrentManagedThreadId;
        int? seen = null;
        using var listener = new MeterListener
        {
            InstrumentPublished = (instrument, self) =>
            {
                if (instrument.Meter.Name == AgentMeter.Name && instrument.Name == "hits.spooled")
                {
                    self.EnableMeasurementEvents(instrument);
                }
            },
        };
        listener.SetMeasurementEventCallback<long>((_, _, _, _) =>
        {
            if (Environment.CurrentManagedThreadId == thread)
            {
                var look = Task.Run(() => opened.Spool.Count);
                seen = look.Wait(TimeSpan.FromSeconds(20)) ? look.GetAwaiter().GetResult() : null; // allowed: the deadlock that is guarded against
            }
        });
        listener.Start();

        Assert.True(opened.Spool.TryAppend([Report(1)]));
        Assert.Equal(1, seen);
    }

    /// <summary>A clock that was set back in between; the control plane refuses a request with such a report whole.</summary>
    [Fact]
    public void Report_ThatEndsBeforeItBegins_IsPutInOrderAlsoWhereItWaitsOnDisk()
    {
        var (early, late) = (DateTimeOffset.UnixEpoch, DateTimeOffset.UnixEpoch.AddHours(1));
        using (var opened = Open())
        {
            opened.Spool.TryAppend([Report(1) with { FirstAt = late, LastAt = early }]);
            Assert.Equal((early, late), (opened.Spool.Peek(1)[0].FirstAt, opened.Spool.Peek(1)[0].LastAt));
        }

        // As an agent before this one left it.
        File.AppendAllText(FilePath, System.Text.Encoding.UTF8.GetString(new SpoolLine(null, 3, [], [Report(2) with { Sequence = 2, FirstAt = late, LastAt = early }]).ToBytes()));
        using var again = Open();
        Assert.Equal([(1L, early, late), (2, early, late)], again.Spool.Peek(2).Select(report => (report.Frame, report.FirstAt, report.LastAt)));
    }

    [Fact]
    [Trait("Invariant", "I5")]
    public void StartOver_WithReportsWaiting_RenumbersThemUnderANewIdDurably()
    {
        string before;
        string after;
        using (var opened = Open())
        {
            before = opened.Spool.SpoolId;
            opened.Spool.TryAppend([Report(1), Report(2), Report(3)], new VmmWatermark(Vmm, 4));
            opened.Spool.Acknowledge(1);
            opened.Spool.StartOver();
            after = opened.Spool.SpoolId;
        }

        using var again = Open();
        Assert.NotEqual(before, after);
        Assert.Equal(after, again.Spool.SpoolId);
        Assert.Equal([(1L, 2L), (2, 3)], again.Spool.Peek(10).Select(report => (report.Sequence, report.Frame)));
        Assert.Equal(4, again.Spool.LastEvent(Vmm));
    }

    [Fact]
    public void StateFolder_UsedByAnother_RefusesToStart()
    {
        using var opened = Open();

        var exception = Assert.Throws<InvalidOperationException>(() => new StateFolder(Options(1 << 20)));

        Assert.Contains("another host agent", exception.Message, StringComparison.Ordinal);
    }

    public void Dispose() => _root.Delete(recursive: true);

    private Opened Open(long bytes = 1 << 20)
    {
        var folder = new StateFolder(Options(bytes));
        return new Opened(folder, new ReportSpool(folder, Options(bytes), NullLogger<ReportSpool>.Instance));
    }

    private Microsoft.Extensions.Options.IOptions<AgentOptions> Options(long bytes) =>
        Microsoft.Extensions.Options.Options.Create(new AgentOptions { StateFolder = _root.FullName, SpoolBytes = bytes });

    private static AgentReport Report(long frame) =>
        new(0, AgentReport.Poison, "vm-1", 1, frame, 12, "srar", "vmm", null, DateTimeOffset.UnixEpoch, DateTimeOffset.UnixEpoch, 1, null, null, null, null);

    private sealed record Opened(StateFolder Folder, ReportSpool Spool) : IDisposable
    {
        public void Dispose()
        {
            Folder.Dispose();
        }
    }
}
