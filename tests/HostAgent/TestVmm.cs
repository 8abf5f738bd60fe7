using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Fleet.Contracts;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Enforce;
using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.Linux.Sockets;
using Fleet.Linux.Userfaultfd;

namespace Fleet.HostAgent.Tests;

/// <summary>Guest memory of this test process: real memory of any kind, mapping and userfaultfd, with the VMM's side of the handoff and no vCPU.</summary>
internal sealed class TestVmm : IDisposable
{
    public const int PageBytes = 4096;

    private readonly MemoryFile? _file;

    /// <param name="events">Features of the handshake besides those that the memory needs.</param>
    /// <param name="file">Guest memory's file of this length, instead of a new memfd; disposed with the VMM.</param>
    public TestVmm(
        long bytes = 16 << 20, string vm = "vm-1", MemoryClass memory = MemoryClass.Memfd, UffdFeatures events = UffdFeatures.None, MemoryFile? file = null)
    {
        (Vm, Bytes) = (vm, bytes);
        var huge = memory is MemoryClass.Hugetlb or MemoryClass.HugetlbPrivate;
        RegionPageBytes = huge ? 2 << 20 : PageBytes;
        _file = file ?? (memory is MemoryClass.Memfd or MemoryClass.Hugetlb ? MemoryFile.Create("fleet-test-guest", bytes, huge) : null);
        Memory = _file is null ? MemoryMapping.MapAnonymous(bytes, huge) : MemoryMapping.MapShared(_file.Descriptor, 0, bytes);
        Userfaultfd = UserfaultfdHandle.Create();
        Userfaultfd.Handshake(events | UffdFeatures.Poison | (huge
            ? UffdFeatures.MissingHugetlbfs | UffdFeatures.MinorHugetlbfs
            : UffdFeatures.MissingShmem | UffdFeatures.MinorShmem));
    }

    public int RegionPageBytes { get; }

    public string Vm { get; }

    public long Bytes { get; }

    public MemoryFile File => _file ?? throw new InvalidOperationException("private memory has no file");

    /// <summary>What goes along with the handoff message.</summary>
    public int[] Descriptors => _file is null ? [Userfaultfd.Number] : [Userfaultfd.Number, _file.Descriptor.Number];

    public MemoryMapping Memory { get; }

    public UserfaultfdHandle Userfaultfd { get; }

    public IReadOnlyList<MemoryRegion> Layout => [new MemoryRegion("0x0", Bytes, RegionPageBytes)];

    public HandoffMessage Message(long lastEvent = 0) => new(
        HandoffProtocol.HandoffType, HandoffProtocol.Version, Vm, Environment.ProcessId, Userfaultfd.Number,
        [new HandoffRegion("0x0", Bytes, HexAddress.Format(Memory.Address), RegionPageBytes, _file is null ? null : 0, _file?.Descriptor.Number, 0)],
        lastEvent, _file is null ? [VmmCapabilities.InjectsMachineCheck, VmmCapabilities.Zaps] : [VmmCapabilities.InjectsMachineCheck]);

    public void Fill(long frame, byte value)
    {
        var bytes = new byte[PageBytes];
        Array.Fill(bytes, value);
        Assert.Equal(Errno.None, ProcessMemory.Write(Environment.ProcessId, Address(frame), bytes));
    }

    /// <summary>An access as a vCPU would make one, but through the kernel, where poison is EFAULT.</summary>
    public (Errno Error, byte Value) Read(long frame)
    {
        Span<byte> buffer = stackalloc byte[1];
        var error = ProcessMemory.Read(Environment.ProcessId, Address(frame) + 100, buffer);
        return (error, buffer[0]);
    }

    public Errno Write(long frame) => ProcessMemory.Write(Environment.ProcessId, Address(frame) + 100, [1]);

    public bool HasMarker(long frame)
    {
        if (RegionPageBytes > PageBytes)
        {
            using var huge = PageMap.Open(Environment.ProcessId);
            var page = Address(frame) & ~((ulong)RegionPageBytes - 1);
            return PageScan.FindNotPresent(huge, page, page + (ulong)RegionPageBytes).Count > 0;
        }

        using var map = PageMap.Open(Environment.ProcessId);
        return map.Read(Address(frame)).IsPoisonMarker;
    }

    /// <summary>Does what the agent's line says, as a VMM with the capability <c>zap</c> must.</summary>
    public void Zap(AgentLine line)
    {
        foreach (var frames in line.Frames!)
        {
            var (offset, bytes) = (frames.Start * PageBytes, (frames.End - frames.Start) * PageBytes);
            if (line.Method == AgentLine.DontNeed)
            {
                Memory.Advise(offset, bytes, MemoryAdvice.DontNeed);
            }
            else
            {
                Memory.Replace(offset, bytes, fresh =>
                {
                    Userfaultfd.Register(fresh, (ulong)bytes, _file is null ? UffdRegisterMode.Missing : UffdRegisterMode.Missing | UffdRegisterMode.Minor);
                    Assert.True(Userfaultfd.Poison(fresh, (ulong)bytes).Succeeded);
                });
            }
        }
    }

    /// <summary>Marks the frames without the agent, as a wider page armed by another would be.</summary>
    public void Mark(long frame, long frames)
    {
        Userfaultfd.Register(Address(frame), (ulong)(frames * PageBytes), UffdRegisterMode.Missing | UffdRegisterMode.Minor);
        File.PunchHole(frame * PageBytes, frames * PageBytes);
        Assert.True(Userfaultfd.Poison(Address(frame), (ulong)(frames * PageBytes)).Succeeded);
    }

    public ulong Address(long frame) => Memory.Address + ((ulong)frame * PageBytes);

    public void Dispose()
    {
        Userfaultfd.Dispose();
        Memory.Dispose();
        _file?.Dispose();
    }
}

/// <summary>The VMM's end of a handoff connection.</summary>
internal sealed class TestChannel : IDisposable
{
    private readonly Socket _socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private StreamReader? _reader;

    public async Task ConnectAsync(string path) =>
        await _socket.ConnectAsync(new UnixDomainSocketEndPoint(path), TestContext.Current.CancellationToken);

    public void Connect(string path) => _socket.Connect(new UnixDomainSocketEndPoint(path));

    public void SendHandoff(HandoffMessage message, params int[] descriptors) =>
        SendRaw([.. JsonSerializer.SerializeToUtf8Bytes(message, HandoffJson.Default.HandoffMessage), (byte)'\n'], descriptors);

    public void SendRaw(ReadOnlySpan<byte> bytes, params int[] descriptors)
    {
        // Without descriptors through the socket itself, which waits where the kernel's buffer is full.
        var sent = descriptors.Length > 0 ? UnixFdSocket.Send(_socket, bytes, descriptors) : 0;
        while (sent < bytes.Length)
        {
            sent += _socket.Send(bytes[sent..]);
        }
    }

    public void SendEvent(VmmEvent vmmEvent) =>
        _socket.Send([.. JsonSerializer.SerializeToUtf8Bytes(vmmEvent, HandoffJson.Default.VmmEvent), (byte)'\n']);

    public void SendState(string state, string? streamTarget, long obeyed, params HandoffFrames[] undelivered) =>
        SendState(new VmmState(VmmState.StateType, state, streamTarget, undelivered, obeyed));

    public void SendState(VmmState state) =>
        _socket.Send([.. JsonSerializer.SerializeToUtf8Bytes(state, HandoffJson.Default.VmmState), (byte)'\n']);

    /// <summary>Answers each <c>zap</c> until the connection ends; other lines are passed over.</summary>
    /// <param name="zap">Carries it out: null when it was done, else the errno's name.</param>
    public async Task ServeZapsAsync(Func<AgentLine, string?> zap)
    {
        while (await ReceiveAsync() is { } line)
        {
            if (line.Type == AgentLine.Zap && zap(line) is var error)
            {
                try
                {
                    SendZapped(new VmmZapped(VmmZapped.ZappedType, line.Sequence, error));
                }
                catch (SocketException)
                {
                    // The agent has ended meanwhile.
                    return;
                }
            }
        }
    }

    public void SendZapped(VmmZapped zapped) =>
        _socket.Send([.. JsonSerializer.SerializeToUtf8Bytes(zapped, HandoffJson.Default.VmmZapped), (byte)'\n']);

    /// <summary>The agent's next line; null when it closed the socket.</summary>
    public async Task<AgentLine?> ReceiveAsync()
    {
        _reader ??= new StreamReader(new NetworkStream(_socket), Encoding.UTF8);
        try
        {
            var line = await _reader.ReadLineAsync(TestContext.Current.CancellationToken).AsTask().WaitAsync(TimeSpan.FromSeconds(60));
            return line is null ? null : JsonSerializer.Deserialize(line, HandoffJson.Default.AgentLine);
        }
        catch (IOException)
        {
            // Closed with bytes unread: a reset instead of an end of file.
            return null;
        }
    }

    public void Dispose()
    {
        _reader?.Dispose();
        _socket.Dispose();
    }
}
