using Fleet.Linux.Memory;
using Fleet.Linux.Userfaultfd;
using Fleet.Tests.Shared;

namespace Fleet.Linux.Tests;

/// <summary>What the kernel does, as FACTS states it and as enforcement relies on it (I1).</summary>
public sealed class UserfaultfdTests : IDisposable
{
    private const int PageBytes = 4096;
    private const int Pages = 16;
    private readonly MemoryFile _file = MemoryFile.Create("fleet-test", Pages * PageBytes);
    private readonly MemoryMapping _memory;
    private UserfaultfdHandle? _uffd;

    public UserfaultfdTests() => _memory = MemoryMapping.MapShared(_file.Descriptor, 0, Pages * PageBytes);

    [Fact]
    public void Handshake_Done_IsSeenInFdinfo()
    {
        Requires.Userfaultfd();
        using var uffd = UserfaultfdHandle.Create();
        Assert.Null(uffd.HandshakeFeatures());

        uffd.Handshake(UffdFeatures.Poison | UffdFeatures.MissingShmem);

        Assert.Equal(UffdFeatures.Poison | UffdFeatures.MissingShmem, uffd.HandshakeFeatures());
        Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(() => uffd.Handshake(UffdFeatures.None)).Errno);
    }

    [Fact]
    public void Constructor_OtherDescriptor_IsRefused() =>
        Assert.Throws<ArgumentException>(() => new UserfaultfdHandle(_file.Descriptor));

    [Fact]
    [Trait("Invariant", "I1")]
    public void Poison_AfterRegisterAndPunchHole_NoAccessReturnsData()
    {
        Fill();
        Arm(page: 3);

        Assert.Equal(Errno.EFAULT, Read(3, out _));
        Assert.Equal(Errno.EFAULT, ProcessMemory.Write(Environment.ProcessId, Address(3), new byte[8]));
        Assert.True(Entry(3).IsPoisonMarker);
        AssertNeighboursIntact(3);
    }

    [Fact]
    [Trait("Invariant", "I1")]
    public void PunchHole_WithoutPoison_ReadsZeros_NegativeControl()
    {
        Fill();
        _file.PunchHole(3 * PageBytes, PageBytes);

        Assert.Equal(Errno.None, Read(3, out var value));
        Assert.Equal(0, value);
        Assert.False(Entry(3).IsPoisonMarker);
    }

    [Fact]
    public void Poison_PagePresent_GivesEexistAndSaysHowFar()
    {
        var uffd = Open();
        Fill();
        uffd.Register(Address(2), 3 * PageBytes, UffdRegisterMode.Missing | UffdRegisterMode.Minor);
        _file.PunchHole(2 * PageBytes, 2 * PageBytes);

        Assert.Equal(new UffdResult(2 * PageBytes, Errno.EEXIST), uffd.Poison(Address(2), 3 * PageBytes));
        Assert.Equal(new UffdResult(0, Errno.EEXIST), uffd.Poison(Address(2), PageBytes));
    }

    [Fact]
    [Trait("Invariant", "I6")]
    public void Marker_DescriptorClosed_Stays()
    {
        Fill();
        Arm(page: 5);
        _uffd!.Dispose();

        Assert.Equal(Errno.EFAULT, Read(5, out _));
    }

    [Fact]
    [Trait("Invariant", "I1")]
    public void Marker_DontNeed_IsLostAndSeenInPageMap()
    {
        Fill();
        Arm(page: 5);

        _memory.Advise(5 * PageBytes, PageBytes, MemoryAdvice.DontNeed);

        Assert.False(Entry(5).IsPoisonMarker);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Event_FirstAccessToTrappedHole_ArrivesAndPoisonAnswersIt(bool write)
    {
        var uffd = Open();
        Fill();
        uffd.Register(Address(7), PageBytes, UffdRegisterMode.Missing | UffdRegisterMode.Minor);
        _file.PunchHole(7 * PageBytes, PageBytes);

        var seen = new TaskCompletionSource<UffdEvent>(TaskCreationOptions.RunContinuationsAsynchronously);
        using var loop = new UffdEventLoop(exception => seen.TrySetException(exception));
        loop.Add(uffd, events =>
        {
            seen.TrySetResult(events[0]);
            Assert.True(uffd.Poison(Address(7), PageBytes).Succeeded);
        });

        var result = await Task.Run(
            () => write ? ProcessMemory.Write(Environment.ProcessId, Address(7) + 24, new byte[8]) : Read(7, out _, 24),
            TestContext.Current.CancellationToken);
        var uffdEvent = await seen.Task;

        Assert.Equal(Errno.EFAULT, result);
        Assert.Equal((UffdEventKind.PageFault, Address(7) + 24 & ~(PageBytes - 1UL), write), (uffdEvent.Kind, uffdEvent.Address & ~(PageBytes - 1UL), uffdEvent.Write));
    }

    [Fact]
    public async Task EventLoop_HandlerThrows_GoesOnServing()
    {
        var uffd = Open();
        uffd.Register(Address(0), 2 * PageBytes, UffdRegisterMode.Missing);
        var errors = 0;
        using var loop = new UffdEventLoop(_ => Interlocked.Increment(ref errors));
        loop.Add(uffd, events =>
        {
            uffd.ZeroPage(events[0].Address & ~(PageBytes - 1UL), PageBytes);
            throw new InvalidOperationException("a handler's defect");
        });

        var results = await Task.Run(() => new[] { Read(0, out _), Read(1, out _) }, TestContext.Current.CancellationToken);
        loop.Remove(uffd);

        Assert.Equal([Errno.None, Errno.None], results);
        Assert.Equal(2, errors);
    }

    /// <summary>Another holder of the descriptor clears its flag: the thread that every VM's events go through must not wait in a read.</summary>
    [Fact]
    public async Task ReadEvents_DescriptorMadeBlocking_ReturnsAtOnce()
    {
        var uffd = Open();
        Assert.True(uffd.IsNonBlocking);
        uffd.SetNonBlocking(false);
        Assert.False(uffd.IsNonBlocking);

        var read = Task.Run(() => Record.Exception(() => Assert.Equal(0, uffd.ReadEvents(new UffdEvent[1]))), TestContext.Current.CancellationToken);

        // Refused on kernels before 6.10, which cannot read it without waiting.
        Assert.True(await read.WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken) is null or LinuxException { Errno: Errno.ENOTSUP });
    }

    /// <summary>One VM whose accesses never end: with more waiting than one read takes, the other's still have their turn in between.</summary>
    [Fact]
    public async Task EventLoop_DescriptorWithMoreEventsThanARead_LetsTheOthersHaveTheirTurn()
    {
        const int Many = 20;
        var uffd = Open();
        uffd.Register(Address(0), PageBytes, UffdRegisterMode.Missing);
        using var file = MemoryFile.Create("fleet-test-busy", Many * PageBytes);
        using var memory = MemoryMapping.MapShared(file.Descriptor, 0, Many * PageBytes);
        using var busy = UserfaultfdHandle.Create();
        busy.Handshake(UffdFeatures.MissingShmem);
        busy.Register(memory.Address, Many * PageBytes, UffdRegisterMode.Missing);
        var reads = Enumerable.Range(0, Many).Select(page => ReadAside(memory.Address + (ulong)(page * PageBytes))).ToList();
        await UntilPendingAsync(busy, Many);

        var order = new List<string>();
        using var first = new ManualResetEventSlim();
        using var mayGoOn = new ManualResetEventSlim();
        using var loop = new UffdEventLoop(_ => order.Add("error"));
        loop.Add(uffd, events => Serve("other", uffd, events));
        loop.Add(busy, events =>
        {
            first.Set();
            mayGoOn.Wait(TestContext.Current.CancellationToken);
            Serve("busy", busy, events);
        });
        first.Wait(TestContext.Current.CancellationToken);
        reads.Add(ReadAside(Address(0)));
        await UntilPendingAsync(uffd, 1);
        mayGoOn.Set();

        Assert.All(await Task.WhenAll(reads), error => Assert.Equal(Errno.None, error));
        loop.Remove(busy);
        Assert.Equal(["busy", "other", "busy"], order);

        void Serve(string name, UserfaultfdHandle from, ReadOnlySpan<UffdEvent> events)
        {
            order.Add(name);
            foreach (var uffdEvent in events)
            {
                from.ZeroPage(uffdEvent.Address & ~(PageBytes - 1UL), PageBytes);
            }
        }
    }

    private static Task<Errno> ReadAside(ulong address) => Task.Factory.StartNew(
        () => ProcessMemory.Read(Environment.ProcessId, address, new byte[1]), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);

    private static async Task UntilPendingAsync(UserfaultfdHandle uffd, int count)
    {
        var started = System.Diagnostics.Stopwatch.GetTimestamp();
        while (!File.ReadLines($"/proc/self/fdinfo/{uffd.Number}").Any(line => line.StartsWith("pending:", StringComparison.Ordinal) && line.AsSpan(8).Trim().SequenceEqual($"{count}")))
        {
            Assert.True(System.Diagnostics.Stopwatch.GetElapsedTime(started) < TimeSpan.FromSeconds(60), $"there are not {count} events waiting");
            await Task.Delay(5, TestContext.Current.CancellationToken); // allowed: polling with a deadline
        }
    }

    [Fact]
    public void CopyContinueZeroPage_OnRegisteredHoles_MapWhatTheySay()
    {
        var uffd = Open();
        Fill();
        uffd.Register(_memory.Address, Pages * PageBytes, UffdRegisterMode.Missing | UffdRegisterMode.Minor);
        _file.PunchHole(0, 2 * PageBytes);
        var bytes = new byte[PageBytes];
        Array.Fill(bytes, (byte)0x5a);

        Assert.True(uffd.Copy(Address(0), bytes).Succeeded);
        Assert.True(uffd.ZeroPage(Address(1), PageBytes).Succeeded);
        _memory.Advise(2 * PageBytes, PageBytes, MemoryAdvice.DontNeed);
        Assert.True(uffd.Continue(Address(2), PageBytes).Succeeded);

        Assert.Equal((Errno.None, 0x5a), (Read(0, out var copied), copied));
        Assert.Equal((Errno.None, 0), (Read(1, out var zero), zero));
        Assert.Equal((Errno.None, 3), (Read(2, out var kept), kept));
    }

    [Fact]
    public void Register_HeldByAnother_IsBusy()
    {
        var uffd = Open();
        uffd.Register(Address(4), PageBytes, UffdRegisterMode.Missing);
        using var other = UserfaultfdHandle.Create();
        other.Handshake(UffdFeatures.MissingShmem);

        var exception = Assert.Throws<LinuxException>(() => other.Register(Address(4), PageBytes, UffdRegisterMode.Missing));

        Assert.Equal(("UFFDIO_REGISTER", Errno.EBUSY), (exception.Call, exception.Errno));
    }

    public void Dispose()
    {
        _uffd?.Dispose();
        _memory.Dispose();
        _file.Dispose();
    }

    private UserfaultfdHandle Open()
    {
        Requires.Userfaultfd();
        _uffd = UserfaultfdHandle.Create();
        _uffd.Handshake(UffdFeatures.Poison | UffdFeatures.MissingShmem | UffdFeatures.MinorShmem);
        return _uffd;
    }

    private void Arm(int page)
    {
        var uffd = Open();
        uffd.Register(Address(page), PageBytes, UffdRegisterMode.Missing | UffdRegisterMode.Minor);
        _file.PunchHole(page * PageBytes, PageBytes);
        Assert.True(uffd.Poison(Address(page), PageBytes).Succeeded);
    }

    private ulong Address(int page) => _memory.Address + (ulong)(page * PageBytes);

    private void Fill()
    {
        for (var page = 0; page < Pages; page++)
        {
            var bytes = new byte[PageBytes];
            Array.Fill(bytes, (byte)(page + 1));
            Assert.Equal(Errno.None, ProcessMemory.Write(Environment.ProcessId, Address(page), bytes));
        }
    }

    private Errno Read(int page, out int value, ulong offset = 0)
    {
        Span<byte> buffer = stackalloc byte[1];
        var error = ProcessMemory.Read(Environment.ProcessId, Address(page) + offset, buffer);
        value = buffer[0];
        return error;
    }

    private PageMapEntry Entry(int page)
    {
        using var map = PageMap.Open(Environment.ProcessId);
        return map.Read(Address(page));
    }

    private void AssertNeighboursIntact(int page)
    {
        Assert.Equal((Errno.None, page), (Read(page - 1, out var before), before));
        Assert.Equal((Errno.None, page + 2), (Read(page + 1, out var after), after));
    }
}
