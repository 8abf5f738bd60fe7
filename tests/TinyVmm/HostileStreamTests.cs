using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Fleet.Contracts.Handoff;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Guest;
using Fleet.TinyVmm.Memory;
using Fleet.TinyVmm.Migration;
using Fleet.TinyVmm.Vcpu;

namespace Fleet.TinyVmm.Tests;

/// <summary>A broken or hostile peer ends its own stream, and nothing else: no page of it stays, and the next stream works.</summary>
[Trait("Invariant", "I1, I4")]
public sealed class HostileStreamTests
{
    private const string Software = SoftwareVirtualCpu.KindName;
    private const string Memory = "1M";
    private const long Pages = 256;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    private static readonly byte[] Page = [.. Enumerable.Repeat((byte)0x5a, 4096)];

    [Theory]
    [InlineData("nothing", StreamException.Torn)]
    [InlineData("garbage", StreamException.Malformed)]
    [InlineData("huge header", StreamException.Malformed)]
    [InlineData("negative header", StreamException.Malformed)]
    [InlineData("header is no json", StreamException.Malformed)]
    [InlineData("header is null", StreamException.Malformed)]
    [InlineData("header is empty", StreamException.Malformed)]
    [InlineData("other version", StreamException.Malformed)]
    [InlineData("other program", StreamException.ProgramMismatch)]
    [InlineData("ends after header", StreamException.Torn)]
    [InlineData("ends within a page", StreamException.Torn)]
    [InlineData("begins late", StreamException.Malformed)]
    [InlineData("page twice", StreamException.Malformed)]
    [InlineData("page missing", StreamException.Malformed)]
    [InlineData("count zero", StreamException.Malformed)]
    [InlineData("count negative", StreamException.Malformed)]
    [InlineData("count too large", StreamException.Malformed)]
    [InlineData("unknown record", StreamException.Malformed)]
    [InlineData("end too early", StreamException.Malformed)]
    [InlineData("no end", StreamException.Malformed)]
    [InlineData("end is no json", StreamException.Malformed)]
    [InlineData("end without list", StreamException.Malformed)]
    [InlineData("reversed range", StreamException.Malformed)]
    [InlineData("command outside of ram", StreamException.Malformed)]
    [InlineData("command in the program", StreamException.Malformed)]
    [InlineData("command unknown", StreamException.Malformed)]
    [InlineData("command done already", StreamException.Malformed)]
    [InlineData("other checksum", StreamException.Torn)]
    [InlineData("no checksum", StreamException.Torn)]
    public async Task Incoming_HostileStream_LeavesNothingBehindAndTheNextWorks(string what, string code)
    {
        await using var target = await RunningVmm.StartIncomingAsync(Software, Memory);
        var (peer, socket) = await ConnectAsync(target);
        await using (peer)
        {
            var answer = await SendAsync(peer, socket, target, what);
            Assert.Equal((false, code), (answer.Ok, answer.Code));
        }

        await Deadline.UntilAsync(() => target.PageOf(0x8_0000) is { } page && page.All(value => value == 0), "all discarded");
        Assert.Equal("incoming", (await target.Client.StatusAsync(Cancelled)).State);
        Assert.Equal(VirtualCpuState.Paused, target.Machine.Vcpu.State);

        await using var source = await RunningVmm.StartWithAsync(Software, Memory);
        await source.Client.WriteAsync(0x8_0000, 4096, 7, Cancelled);
        await source.Client.MigrateOutAsync(target.Machine.IncomingAddress!, Cancelled);
        target.Machine.Run.Run();
        Assert.Equal(GuestArithmetic.PatternChecksum(0x8_0000, 4096, 7), RunningVmm.Dword((await target.Client.ChecksumAsync(0x8_0000, 4096, Cancelled)).Checksum));
    }

    // The other way round, and the proof that the hand-made stream is right in all but what each case above spoils. A page that went out
    // before its poison was known is a hole in the end.
    [Fact]
    public async Task Incoming_PageDeclaredUndeliveredAfterItWasSent_IsAHole()
    {
        await using var target = await RunningVmm.StartIncomingAsync(Software, Memory);
        var (peer, socket) = await ConnectAsync(target);
        await using (peer)
        {
            Assert.True((await SendAsync(peer, socket, target, "late")).Ok);
        }

        Assert.Equal("loaded", (await target.Client.StatusAsync(Cancelled)).State);
        Assert.Equal([new HandoffFrames(0x80, 0x81)], target.Machine.Run.Present.Undelivered!);
        Assert.True(target.IsHole(0x8_0000));
        Assert.Equal(Page, target.PageOf(0x8_1000));
    }

    [Fact]
    public async Task Incoming_StreamUnderWay_RefusesAnotherAndTakesItLater()
    {
        await using var source = await RunningVmm.StartWithAsync(Software, Memory);
        await using var target = await RunningVmm.StartIncomingAsync(Software, Memory);
        var (peer, _) = await ConnectAsync(target);
        await using (peer)
        {
            await SendHeaderAsync(peer, target);
            Assert.True((await peer.ReadAnswerAsync(Cancelled)).Ok);
            Assert.Equal(StreamException.Busy, await FailAsync(source, target.Machine.IncomingAddress!));
        }

        while (true)
        {
            try
            {
                await source.Client.MigrateOutAsync(target.Machine.IncomingAddress!, Cancelled);
                break;
            }
            catch (ControlException exception) when (exception.Code == StreamException.Busy)
            {
                // The target has not noticed the end of the first yet.
            }
        }

        Assert.Equal("loaded", (await target.Client.StatusAsync(Cancelled)).State);
    }

    [Theory]
    [InlineData("closes at once", StreamException.Torn)]
    [InlineData("garbage", StreamException.Malformed)]
    [InlineData("ok without instance", StreamException.Malformed)]
    [InlineData("refuses without code", StreamException.Malformed)]
    [InlineData("closes after header", StreamException.Torn)]
    [InlineData("closes at the end", StreamException.Torn)]
    [InlineData("refuses at the end", StreamException.Torn)]
    [InlineData("another instance at the end", StreamException.Malformed)]
    [InlineData("says nothing", StreamException.TimedOut)]
    public async Task MigrateOut_HostileTarget_FailsAttestsNothingAndTheNextWorks(string what, string code)
    {
        await using var source = await RunningVmm.StartWithAsync(Software, Memory, options => options with { Limits = new StreamLimits(TimeSpan.FromSeconds(what == "says nothing" ? 3 : 15), TimeSpan.FromSeconds(30)) });
        await using var target = await RunningVmm.StartIncomingAsync(Software, Memory);
        await source.Client.StoreAsync(0x8_0000, 0x77, Cancelled);
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen(1);
        using var ended = CancellationTokenSource.CreateLinkedTokenSource(Cancelled);
        var serving = PretendAsync(listener, what, ended.Token);

        Assert.Equal(code, await FailAsync(source, MigrationEndpoint.Describe(listener)));

        await ended.CancelAsync();
        await serving.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing | ConfigureAwaitOptions.ContinueOnCapturedContext);
        await source.Client.ResumeAsync(Cancelled);
        Assert.Equal("0x77", (await source.Client.ReadAsync(0x8_0000, Cancelled)).Value);
        Assert.StartsWith(StreamIdentity.Instance, (await source.Client.MigrateOutAsync(target.Machine.IncomingAddress!, Cancelled)).StreamTarget, StringComparison.Ordinal);
    }

    private static async Task<(StreamConnection Peer, Socket Socket)> ConnectAsync(RunningVmm target)
    {
        Assert.True(MigrationEndpoint.TryParse(target.Machine.IncomingAddress, out var endpoint));
        var socket = await endpoint.ConnectAsync(Cancelled);
        return (new StreamConnection(socket, Deadline.Patience, TimeProvider.System), socket);
    }

    private static async Task SendHeaderAsync(StreamConnection peer, RunningVmm target, Func<StreamHeader, StreamHeader>? spoil = null)
    {
        var header = new StreamIdentity("vm-1", Software, new GuestProgram(), target.Machine.Memory).Header;
        await peer.WriteAsync(StreamConnection.Magic.ToArray(), Cancelled);
        await peer.WriteMessageAsync(spoil?.Invoke(header) ?? header, StreamJson.Default.StreamHeader, Cancelled);
    }

    private static async Task<StreamAnswer> SendAsync(StreamConnection peer, Socket socket, RunningVmm target, string what)
    {
        switch (what)
        {
            case "nothing":
                break;
            case "garbage":
                await peer.WriteAsync(Encoding.UTF8.GetBytes("GET / HTTP/1.1\r\n\r\n"), Cancelled);
                break;
            case "huge header" or "negative header":
                await peer.WriteAsync(StreamConnection.Magic.ToArray(), Cancelled);
                await peer.WriteAsync(Int(what == "huge header" ? int.MaxValue : -1), Cancelled);
                break;
            case "header is no json" or "header is null" or "header is empty":
                await peer.WriteAsync(StreamConnection.Magic.ToArray(), Cancelled);
                await WriteTextAsync(peer, what switch { "header is null" => "null", "header is empty" => "{}", _ => "{\"version\":" });
                break;
            case "other version":
                await SendHeaderAsync(peer, target, header => header with { Version = 2 });
                break;
            case "other program":
                await SendHeaderAsync(peer, target, header => header with { Program = new string('0', 64) });
                break;
            default:
                await SendHeaderAsync(peer, target);
                Assert.True((await peer.ReadAnswerAsync(Cancelled)).Ok);
                try
                {
                    await SendRamAsync(peer, what);
                }
                catch (StreamException exception) when (exception.Code == StreamException.Torn)
                {
                    // The target has refused and closed before all was sent.
                }

                break;
        }

        try
        {
            socket.Shutdown(SocketShutdown.Send);
        }
        catch (SocketException)
        {
            // The target has refused and closed; its answer is still there to read.
        }

        return await peer.ReadAnswerAsync(Cancelled);
    }

    private static async Task SendRamAsync(StreamConnection peer, string what)
    {
        const long Last = Pages - 1;
        if (what == "ends after header")
        {
            return;
        }

        await WriteAsync(peer, StreamRecordKind.Zero, what == "begins late" ? 1 : 0, 0x80);
        await WriteAsync(peer, StreamRecordKind.Data, 0x80, what switch { "count zero" => 0, "count negative" => -1, "count too large" => 1 << 20, _ => 2 });
        await peer.WriteAsync(Page, Cancelled);
        await peer.WriteAsync(what == "ends within a page" ? Page.AsMemory(0, 100) : Page, Cancelled);
        if (what is "ends within a page" or "count zero" or "count negative" or "count too large")
        {
            return;
        }

        await WriteAsync(peer, what == "unknown record" ? (StreamRecordKind)'X' : StreamRecordKind.Zero, what switch { "page twice" => 0x81, "page missing" => 0x83, _ => 0x82 }, Last - 0x82);
        await WriteAsync(peer, what == "end too early" ? StreamRecordKind.End : StreamRecordKind.Zero, what == "end too early" ? 0 : Last, 1);
        if (what == "no end")
        {
            await WriteAsync(peer, StreamRecordKind.Zero, Pages, 1);
            return;
        }

        await WriteAsync(peer, StreamRecordKind.End, 0, 0);
        await WriteTextAsync(peer, what switch
        {
            "end is no json" => "{\"undelivered\":[",
            "end without list" => "{}",
            "reversed range" => "{\"undelivered\":[{\"start\":9,\"end\":3}]}",
            "command outside of ram" => Command(4, 0x10_0000, 4096, 0),
            "command in the program" => Command(3, 0x2000, 4096, 0),
            "command unknown" => Command(9, 0x8_0000, 4096, 0),
            "command done already" => Command(3, 0x8_0000, 4096, 4096),
            "late" => "{\"undelivered\":[{\"start\":128,\"end\":129}]}",
            _ => "{\"undelivered\":[]}",
        });
        if (what == "other checksum")
        {
            await peer.WriteAsync(new byte[32], Cancelled);
        }
        else if (what != "no checksum")
        {
            await peer.WriteChecksumAsync(Cancelled);
        }

        static string Command(int operation, int address, int bytes, int done) =>
FormattableString.Invariant($$$"""{"undelivered":[],"command":{"operation":{{{operation}}},"address":{{{address}}},"bytes":{{{bytes}}},"value":1,"done":{{{done}}},"partial":0}}""");
    }

    private static async Task PretendAsync(Socket listener, string what, CancellationToken cancellationToken)
    {
        var socket = await listener.AcceptAsync(cancellationToken);
        await using var peer = new StreamConnection(socket, Deadline.Patience, TimeProvider.System);
        if (what == "closes at once")
        {
            return;
        }

        var magic = new byte[StreamConnection.Magic.Length];
        await peer.ReadAsync(magic, cancellationToken);
        var header = await peer.ReadMessageAsync(StreamJson.Default.StreamHeader, cancellationToken);
        switch (what)
        {
            case "garbage":
                await peer.WriteAsync(Encoding.UTF8.GetBytes("HTTP/1.1 400 Bad Request\r\n\r\n"), cancellationToken);
                return;
            case "ok without instance":
                await peer.AnswerAsync(new StreamAnswer(true, null), cancellationToken);
                return;
            case "refuses without code":
                await peer.AnswerAsync(new StreamAnswer(false, null), cancellationToken);
                return;
            case "says nothing":
                await Task.Delay(Timeout.InfiniteTimeSpan, cancellationToken);
                return;
        }

        await peer.AnswerAsync(new StreamAnswer(true, "boot:1:2"), cancellationToken);
        if (what == "closes after header")
        {
            return;
        }

        Assert.True(MemoryLayout.TryParse(Memory, out var layout, out _));
        using var memory = new GuestMemory("pretended", layout);
        await new IncomingStream(peer, memory, new BlockingAccess(Deadline.Patience, TimeProvider.System)).LoadAsync(cancellationToken);
        Assert.Equal("vm-1", header.Vm);
        if (what == "refuses at the end")
        {
            await peer.AnswerAsync(new StreamAnswer(false, null, StreamException.Torn, new string('x', 3000)), cancellationToken);
        }
        else if (what == "another instance at the end")
        {
            await peer.AnswerAsync(new StreamAnswer(true, "boot:1:3"), cancellationToken);
        }
    }

    private static async Task<string> FailAsync(RunningVmm source, string to)
    {
        var failed = await Assert.ThrowsAsync<ControlException>(() => source.Client.MigrateOutAsync(to, Cancelled));
        Assert.Null((await source.Client.StatusAsync(Cancelled)).StreamTarget);
        Assert.Equal(VirtualCpuState.Paused, source.Machine.Vcpu.State);
        return failed.Code;
    }

    private static Task WriteAsync(StreamConnection peer, StreamRecordKind kind, long start, long count)
    {
        var record = new byte[StreamRecord.Bytes];
        new StreamRecord(kind, start, count).Write(record);
        return peer.WriteAsync(record, Cancelled);
    }

    private static async Task WriteTextAsync(StreamConnection peer, string text)
    {
        var bytes = Encoding.UTF8.GetBytes(text);
        await peer.WriteAsync(Int(bytes.Length), Cancelled);
        await peer.WriteAsync(bytes, Cancelled);
    }

    private static byte[] Int(int value)
    {
        var bytes = new byte[sizeof(int)];
        BinaryPrimitives.WriteInt32LittleEndian(bytes, value);
        return bytes;
    }
}
