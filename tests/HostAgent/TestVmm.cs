using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Fleet.Contracts;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Vms;
using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.Linux.Sockets;
using Fleet.Linux.Userfaultfd;

namespace Fleet.HostAgent.Tests;

/// <summary>Guest memory of this test process: real memfd, mapping and userfaultfd, with the VMM's side of the handoff and no vCPU.</summary>
internal sealed class TestVmm : IDisposable
{
    public const int PageBytes = 4096;

    public TestVmm(long bytes = 16 << 20, string vm = "vm-1")
    {
        (Vm, Bytes) = (vm, bytes);
        File = MemoryFile.Create("fleet-test-guest", bytes);
        Memory = MemoryMapping.MapShared(File.Descriptor, 0, bytes);
        Userfaultfd = UserfaultfdHandle.Create();
        Userfaultfd.Handshake(UffdFeatures.Poison | UffdFeatures.MissingShmem | UffdFeatures.MinorShmem);
    }

    public string Vm { get; }

    public long Bytes { get; }

    public MemoryFile File { get; }

    public MemoryMapping Memory { get; }

    public UserfaultfdHandle Userfaultfd { get; }

    public IReadOnlyList<MemoryRegion> Layout => [new MemoryRegion("0x0", Bytes, PageBytes)];

    public HandoffMessage Message(long lastEvent = 0) => new(
        HandoffProtocol.HandoffType, HandoffProtocol.Version, Vm, Environment.ProcessId, Userfaultfd.Number,
        [new HandoffRegion("0x0", Bytes, HexAddress.Format(Memory.Address), PageBytes, 0, File.Descriptor.Number, 0)],
        lastEvent, [VmmCapabilities.InjectsMachineCheck]);

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
        using var map = PageMap.Open(Environment.ProcessId);
        return map.Read(Address(frame)).IsPoisonMarker;
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
        File.Dispose();
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

    /// <summary>The agent's next line; null when it closed the socket.</summary>
    public async Task<AgentLine?> ReceiveAsync()
    {
        _reader ??= new StreamReader(new NetworkStream(_socket), Encoding.UTF8);
        try
        {
            var line = await _reader.ReadLineAsync(TestContext.Current.CancellationToken).AsTask().WaitAsync(TimeSpan.FromSeconds(30));
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
