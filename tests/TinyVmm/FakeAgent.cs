using System.Net.Sockets;
using System.Text.Json;
using Fleet.Contracts.Handoff;
using Fleet.Linux;
using Fleet.Linux.Sockets;
using Fleet.TinyVmm.Wire;

namespace Fleet.TinyVmm.Tests;

/// <summary>The agent's end of one handoff connection.</summary>
internal sealed class FakeAgent : IAsyncDisposable
{
    private readonly NetworkStream _stream;
    private readonly LineReader _lines;
    private readonly List<FileDescriptor> _descriptors = [];

    private FakeAgent(Socket socket)
    {
        _stream = new NetworkStream(socket, ownsSocket: true);
        _lines = new LineReader(_stream, HandoffProtocol.MaximumLineBytes);
    }

    public HandoffMessage Handoff { get; private set; } = null!;

    public IReadOnlyList<FileDescriptor> Descriptors => _descriptors;

    public static Socket Listen(string path)
    {
        File.Delete(path);
        var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen(1);
        return listener;
    }

    /// <summary>Takes the next connection and its handoff; answers nothing yet.</summary>
    public static async Task<FakeAgent> AcceptAsync(Socket listener)
    {
        using var patience = new CancellationTokenSource(Deadline.Patience);
        var socket = await listener.AcceptAsync(patience.Token);
        var agent = new FakeAgent(socket);
        var received = new List<byte>();
        var buffer = new byte[4096];
        while (!received.Contains((byte)'\n'))
        {
            await socket.ReceiveAsync(Array.Empty<byte>(), patience.Token);
            var count = UnixFdSocket.Receive(socket, buffer, HandoffProtocol.MaximumDescriptors, agent._descriptors);
            Assert.NotEqual(0, count);
            received.AddRange(buffer.AsSpan(0, Math.Max(count, 0)));
        }

        agent.Handoff = JsonSerializer.Deserialize([.. received], HandoffJson.Default.HandoffMessage)!;
        return agent;
    }

    public async Task SendAsync(AgentLine line) => await _stream.WriteAsync(JsonLine.Encode(line, HandoffJson.Default.AgentLine));

    public Task AttachedAsync(long sequence = 0) => SendAsync(new AgentLine(AgentLine.Attached, sequence, null, null));

    public Task AcknowledgeAsync(long sequence) => SendAsync(new AgentLine(AgentLine.Acknowledged, sequence, null, null));

    public async Task SendRawAsync(string line) => await _stream.WriteAsync(System.Text.Encoding.UTF8.GetBytes(line));

    public Task RunAsync() => SendAsync(new AgentLine(AgentLine.Run, 0, null, null));

    public Task HoldAsync() => SendAsync(new AgentLine(AgentLine.Hold, 0, null, null));

    public Task SkipAsync(params HandoffFrames[] frames) => SendAsync(new AgentLine(AgentLine.Skip, 0, null, null, frames));

    /// <summary>The next event; states before it are passed over.</summary>
    public async Task<VmmEvent> NextEventAsync() =>
        JsonSerializer.Deserialize(await NextAsync(type => type != VmmState.StateType), HandoffJson.Default.VmmEvent)!;

    /// <summary>The next state; events before it are passed over.</summary>
    public async Task<VmmState> NextStateAsync() =>
        JsonSerializer.Deserialize(await NextAsync(type => type == VmmState.StateType), HandoffJson.Default.VmmState)!;

    /// <summary>The next answer to a <c>zap</c>; other lines are passed over.</summary>
    public async Task<VmmZapped> NextZappedAsync() =>
        JsonSerializer.Deserialize(await NextAsync(type => type == VmmZapped.ZappedType), HandoffJson.Default.VmmZapped)!;

    /// <summary>Reads on until the VMM says this state.</summary>
    public async Task<VmmState> UntilStateAsync(string state)
    {
        while (true)
        {
            if (await NextStateAsync() is var next && next.State == state)
            {
                return next;
            }
        }
    }

    private async Task<byte[]> NextAsync(Func<string, bool> wanted)
    {
        using var patience = new CancellationTokenSource(Deadline.Patience);
        while (true)
        {
            var line = await _lines.ReadAsync(patience.Token) ?? throw new EndOfStreamException("the VMM closed the connection");
            using var json = JsonDocument.Parse(line);
            if (wanted(json.RootElement.GetProperty("type").GetString()!))
            {
                return line;
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _lines.DisposeAsync();
        await _stream.DisposeAsync();
        _descriptors.ForEach(fd => fd.Dispose());
    }
}
