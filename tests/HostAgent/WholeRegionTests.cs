using Fleet.Contracts;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Enforce;
using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.Linux.Processes;
using Fleet.Linux.Userfaultfd;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>With more poisoned ranges than the VMM may have mappings, all of its memory is registered, and the agent answers every fault.</summary>
public sealed class WholeRegionTests : IDisposable
{
    private const long Bytes = 32 << 20;

    // Every process has more than this: the first page to arm is one too many.
    private static readonly (string, string) Limit = ("Agent:MapCountLimit", "8");

    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");
    private readonly TestVmm _vmm;

    public WholeRegionTests()
    {
        Requires.Userfaultfd();
        _vmm = new TestVmm(Bytes);
    }

    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Arm_NearTheLimit_RegistersTheWholeRegionAndAddsNoMapping()
    {
        PageKey[] pages = [.. Enumerable.Range(0, 1_000).Select(i => new PageKey(i * 4, 12))];
        await using var agent = await StartAsync(Limit, TestAgent.Vm(_vmm, 1, pages));
        var before = RegionMaps();

        using var channel = await agent.AttachAsync(_vmm);

        Assert.True(agent.Table.Find("vm-1")!.Attachment!.WholeRegions);
        Assert.Equal(before, RegionMaps());
        Assert.All(pages, page => Assert.Equal(Errno.EFAULT, _vmm.Read(page.Frame).Error));

        // Never touched before: each is an event that the agent answers with the page that the kernel would have given.
        Assert.Equal((Errno.None, (byte)0), _vmm.Read(4_001));
        _vmm.Fill(4_002, 9);
        Assert.Equal((Errno.None, (byte)9), _vmm.Read(4_002));
    }

    /// <summary>The control: with the kernel's own limit a thousand ranges are a thousand registrations.</summary>
    [Fact]
    public async Task Arm_FarFromTheLimit_RegistersEachRangeAlone()
    {
        PageKey[] pages = [.. Enumerable.Range(0, 1_000).Select(i => new PageKey(i * 4, 12))];
        await using var agent = await StartAsync(("Agent:MapCountLimit", "0"), TestAgent.Vm(_vmm, 1, pages));
        var before = RegionMaps();

        using var channel = await agent.AttachAsync(_vmm);

        Assert.False(agent.Table.Find("vm-1")!.Attachment!.WholeRegions);
        Assert.InRange(RegionMaps() - before, 1_000, 2_000);
        Assert.Equal(Errno.EFAULT, _vmm.Read(0).Error);
    }

    /// <summary>Adjacent pages are one range, whatever their number: one registration, one hole, one call to mark them.</summary>
    [Fact]
    public async Task Arm_AdjacentPages_AreOneRange()
    {
        PageKey[] pages = [.. Enumerable.Range(100, 1_000).Select(frame => new PageKey(frame, 12))];
        await using var agent = await StartAsync(("Agent:MapCountLimit", "0"), TestAgent.Vm(_vmm, 1, pages));
        var before = RegionMaps();

        using var channel = await agent.AttachAsync(_vmm);

        Assert.Equal(before + 2, RegionMaps());
        Assert.All(new long[] { 100, 600, 1_099 }, frame => Assert.Equal(Errno.EFAULT, _vmm.Read(frame).Error));
        Assert.All(new long[] { 99, 1_100 }, frame => Assert.Equal(Errno.None, _vmm.Read(frame).Error));
    }

    [Fact]
    public async Task Clear_InAWholeRegion_MakesThePageOrdinaryAndLeavesTheRegionRegistered()
    {
        _vmm.Fill(10, 5);
        await using var agent = await StartAsync(Limit, TestAgent.Vm(_vmm, 1, new PageKey(10, 12), new PageKey(12, 12)));
        using var channel = await agent.AttachAsync(_vmm);
        var maps = RegionMaps();

        await agent.AdoptAndWaitAsync(TestAgent.Vm(_vmm, 2, new PageKey(12, 12)));

        Assert.Equal((Errno.None, (byte)0), _vmm.Read(10));
        Assert.Equal(Errno.None, _vmm.Write(10));
        Assert.Equal(Errno.EFAULT, _vmm.Read(12).Error);
        Assert.Equal(maps, RegionMaps());
    }

    /// <summary>
    /// The guest works all the time: each access that needs a page waits for an agent, also while none runs and after the next one has found
    /// the VMM again. No byte is ever other than the guest's last, and no poisoned page answers.
    /// </summary>
    [Fact]
    [Trait("Invariant", "IT")]
    [Trait("Invariant", "I6")]
    public async Task Load_AcrossRestartsOfTheAgent_ReadsWhatItWroteAndNeverPoison()
    {
        const int Restarts = 4;
        PageKey[] pages = [.. Enumerable.Range(0, 100).Select(i => new PageKey(i * 15, 12))];
        var first = await StartAsync(Limit, TestAgent.Vm(_vmm, 1, pages));
        using (await first.AttachAsync(_vmm))
        {
        }

        using var stop = new CancellationTokenSource();
        var guests = Enumerable.Range(0, 2).Select(guest => new GuestLoad(_vmm, pages, guest)).ToArray();
        var work = guests.Select(guest => Task.Factory.StartNew(() => guest.Run(stop.Token), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default)).ToArray();
        await first.DisposeAsync();
        for (var restart = 0; restart < Restarts; restart++)
        {
            // Nobody answers now. What a guest waits for is still waiting when the next agent comes.
            await TestAgent.UntilAsync(() => UffdPending() > 0);
            await using var agent = await StartAsync(Limit);
            await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")?.Attachment is not null);
            Assert.True(agent.Table.Find("vm-1")!.Attachment!.WholeRegions);
            var done = guests.Sum(guest => guest.Done);
            await TestAgent.UntilAsync(() => guests.Sum(guest => guest.Done) > done + 2_000);

            // Give memory back, so that there is something to fault for, as a balloon does; poisoned pages stay poisoned.
            guests[0].Forget();
            guests[1].Forget();
        }

        await using var last = await StartAsync(Limit);
        await TestAgent.UntilAsync(() => last.Table.Find("vm-1")?.Attachment is not null);
        await stop.CancelAsync();
        await Task.WhenAll(work);

        Assert.All(guests, guest => Assert.Equal((0L, 0L), (guest.Wrong, guest.Silent)));
        Assert.All(guests, guest => Assert.True(guest.Refused > 0, "no guest touched a poisoned page"));
    }

    /// <summary>An event that the dead agent had read is not sent again: the next one wakes whoever waits, wherever that is.</summary>
    [Fact]
    [Trait("Invariant", "I6")]
    public async Task Takeover_AfterAnEventWasReadAndNotAnswered_LetsTheGuestGoOn()
    {
        await using (var first = await StartAsync(Limit, TestAgent.Vm(_vmm, 1, new PageKey(10, 12))))
        {
            (await first.AttachAsync(_vmm)).Dispose();
        }

        var read = Task.Run(() => _vmm.Read(4_000), TestContext.Current.CancellationToken);
        await TestAgent.UntilAsync(() => UffdPending() > 0);
        Assert.Equal(1, _vmm.Userfaultfd.ReadEvents(new UffdEvent[16]));

        await using var second = await StartAsync(Limit);

        Assert.Equal((Errno.None, (byte)0), await read.WaitAsync(TimeSpan.FromSeconds(60), TestContext.Current.CancellationToken));
    }

    /// <summary>A first access is about to be answered with zeros when its page is armed: the answer must not come after the marker, which it would replace.</summary>
    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Arm_WhileAFirstAccessToThePageIsAnswered_LeavesTheMarker()
    {
        var frames = FrameSet.Of([new PageKey(10, 12)]);
        using var pidfd = Pidfd.Open(Environment.ProcessId);
        var attachment = new Attachment("vm-1", 1, ProcessIdentity.Of(Environment.ProcessId)!, pidfd, _vmm.Userfaultfd, _vmm.Userfaultfd.Number,
            new GuestLayout([new GuestRegion(0, Bytes, _vmm.Memory.Address, TestVmm.PageBytes, GuestBacking.OfFile(_vmm.File, _vmm.File.Descriptor.Number, 0))]))
        {
            WholeRegions = true,
        };
        _vmm.Userfaultfd.Register(_vmm.Memory.Address, (ulong)Bytes, UffdRegisterMode.Missing | UffdRegisterMode.Minor);
        var read = Task.Run(() => _vmm.Read(10), TestContext.Current.CancellationToken);
        await TestAgent.UntilAsync(() => UffdPending() > 0);
        var events = new UffdEvent[16];
        var count = _vmm.Userfaultfd.ReadEvents(events);
        IReadOnlyList<ArmFailure>? failures = null;
        var arming = new Thread(() =>
        {
            attachment.Trapped = frames;
            failures = Enforcer.Arm(attachment, frames);
        });
        var handler = new FaultHandler(attachment, () => { })
        {
            Decided = () =>
            {
                arming.Start();
                // As far as it comes: to its end, or to where it must wait for the answer.
                SpinWait.SpinUntil(() => (arming.ThreadState & (ThreadState.Stopped | ThreadState.WaitSleepJoin)) != 0, TimeSpan.FromSeconds(15));
            },
        };

        handler.Handle(events.AsSpan(0, count));
        arming.Join();
        await read.WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken);

        Assert.Empty(failures!);
        Assert.True(_vmm.HasMarker(10));
        Assert.Equal(Errno.EFAULT, _vmm.Read(10).Error);
    }

    public void Dispose()
    {
        _vmm.Dispose();
        _root.Delete(recursive: true);
    }

    private Task<TestAgent> StartAsync((string, string) setting, params Contracts.Agents.DesiredVm[] desired) =>
        TestAgent.StartAsync(_root.FullName, "marker", [setting], desired);

    private int RegionMaps() => ProcessMaps.Read(Environment.ProcessId)
        .Count(map => map.Start >= _vmm.Memory.Address && map.End <= _vmm.Memory.Address + (ulong)_vmm.Bytes);

    private long UffdPending() => File.ReadLines($"/proc/self/fdinfo/{_vmm.Userfaultfd.Number}")
        .Where(line => line.StartsWith("pending:", StringComparison.Ordinal))
        .Select(line => long.Parse(line.AsSpan(8).Trim(), System.Globalization.CultureInfo.InvariantCulture)).First();

    /// <summary>One guest thread with every second page as its own, and a record of what it wrote.</summary>
    private sealed class GuestLoad(TestVmm vmm, PageKey[] poisoned, int own)
    {
        private readonly byte[] _written = new byte[vmm.Bytes / TestVmm.PageBytes];
        private readonly HashSet<long> _poisoned = [.. poisoned.Select(page => page.Frame)];
        private readonly Random _random = new(own);
        private volatile bool _forget;
        private long _done;

        public long Done => Interlocked.Read(ref _done);

        public long Wrong { get; private set; }

        public long Silent { get; private set; }

        public long Refused { get; private set; }

        public void Forget() => _forget = true;

        public void Run(CancellationToken stop)
        {
            Span<byte> read = stackalloc byte[1];
            while (!stop.IsCancellationRequested)
            {
                if (_forget)
                {
                    _forget = false;
                    Discard();
                }

                var frame = (_random.NextInt64(_written.Length / 2) * 2) + own;
                var error = ProcessMemory.Read(Environment.ProcessId, vmm.Address(frame) + 100, read);
                if (_poisoned.Contains(frame))
                {
                    Silent += error == Errno.None ? 1 : 0;
                    Refused += error == Errno.EFAULT ? 1 : 0;
                }
                else
                {
                    Wrong += error != Errno.None || read[0] != _written[frame] ? 1 : 0;
                    _written[frame] = (byte)_random.Next(1, 256);
                    Wrong += ProcessMemory.Write(Environment.ProcessId, vmm.Address(frame) + 100, [_written[frame]]) == Errno.None ? 0 : 1;
                }

                Interlocked.Increment(ref _done);
            }
        }

        private void Discard()
        {
            for (var frame = own; frame < _written.Length; frame += 2)
            {
                vmm.File.PunchHole((long)frame * TestVmm.PageBytes, TestVmm.PageBytes);
                _written[frame] = 0;
            }
        }
    }
}
