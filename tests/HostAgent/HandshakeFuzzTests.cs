using System.Diagnostics.Metrics;
using System.Net.Sockets;
using Fleet.Contracts;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Metrics;
using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.Linux.Processes;
using Fleet.Linux.Sockets;
using Fleet.Linux.Userfaultfd;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>A VMM that sends whatever comes to its mind, while another VM on the host is armed.</summary>
public sealed class HandshakeFuzzTests : IDisposable
{
    private const int Seed = 20260711;
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");
    private readonly TestVmm _armed;
    private readonly TestVmm _hostile;
    private long _defects;

    public HandshakeFuzzTests()
    {
        Requires.Userfaultfd();
        _armed = new TestVmm();
        _hostile = new TestVmm(vm: "vm-2");
    }

    private static int Count => Environment.GetEnvironmentVariable("FLEET_FULL") == "1" ? 400_000 : 100_000;

    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Handshakes_Generated_NoDefectNoLeakAndNoHarmToAnotherVm()
    {
        using var listener = ListenToDefects();
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_armed, 1, new PageKey(5, 12)), TestAgent.Vm(_hostile, 1, new PageKey(7, 12)));
        using var channel = await agent.AttachAsync(_armed);
        (await agent.AttachAsync(_hostile)).Dispose();
        var attachment = agent.Table.Find("vm-1")!.Attachment;
        _armed.Fill(6, 66);
        using var strange = new StrangeDescriptors(_armed);
        var fuzzer = new HandshakeFuzzer(Seed, _hostile.Message(), [_hostile.Userfaultfd.Number, _hostile.File.Descriptor.Number], strange.Numbers);
        var before = CountOpen();
        var answers = new Dictionary<string, int>(StringComparer.Ordinal);

        for (var i = 0; i < Count; i++)
        {
            var answer = Connect(agent.Socket("vm-2"), fuzzer.Next());
            answers[answer] = answers.GetValueOrDefault(answer) + 1;
            if (i % 500 == 0)
            {
                AssertUnharmed(agent, attachment!, i);
            }
        }

        AssertUnharmed(agent, attachment!, Count);
        Assert.Equal(0, Interlocked.Read(ref _defects));
        // The generator reached every part of the protocol.
        Assert.True(answers.Count >= 12, string.Join(", ", answers));
        Assert.All(["attached", "malformed", "bad-regions", "wrong-descriptor", "no-descriptor", "wrong-pid", "wrong-vm", "already-attached"], code => Assert.True(answers.ContainsKey(code), $"no {code} in {string.Join(", ", answers)}"));

        // The agent is as good as new, for the hostile VM too, and holds as many descriptors as before.
        using (var again = await agent.AttachAsync(_hostile))
        {
            Assert.True(_hostile.HasMarker(7));
        }

        await TestAgent.UntilAsync(() => CountOpen() <= before);
    }

    /// <summary>Found by reasoning about the fuzzer: a message that is right in every word, about memory that is another VM's.</summary>
    [Fact]
    [Trait("Invariant", "I7")]
    public async Task Handoff_MemoryOfAnotherVm_IsRefusedBeforeItIsTouched()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_armed, 1, new PageKey(0, 12)), TestAgent.Vm(_hostile, 1, new PageKey(9, 12)));
        using var channel = await agent.AttachAsync(_armed);
        _armed.Fill(9, 99);
        using var thief = await agent.ConnectAsync("vm-2");

        thief.SendHandoff(_armed.Message() with { Vm = "vm-2" }, _armed.Userfaultfd.Number, _armed.File.Descriptor.Number);

        Assert.Equal("already-attached", (await thief.ReceiveAsync())?.Code);
        Assert.Equal((Errno.None, 99), _armed.Read(9));
        // The check for the right process registers the first page, and lets go of it: that page's arming must have survived.
        _armed.Memory.Advise(0, TestVmm.PageBytes, MemoryAdvice.DontNeed);
        await agent.LookAsync("vm-1");
        Assert.True(_armed.HasMarker(0));
    }

    public void Dispose()
    {
        _armed.Dispose();
        _hostile.Dispose();
        _root.Delete(recursive: true);
    }

    private void AssertUnharmed(TestAgent agent, Attach.Attachment attachment, int after)
    {
        Assert.True(_armed.HasMarker(5) && _armed.Read(5).Error == Errno.EFAULT, $"the other VM's page is open after {after} handshakes (seed {Seed})");
        Assert.Equal((Errno.None, 66), _armed.Read(6));
        Assert.Same(attachment, agent.Table.Find("vm-1")!.Attachment);
        Assert.Equal(EnforcementStates.Armed, agent.Table.Find("vm-1")!.Status!.State);
    }

    // Sockets, memory, userfaultfds, processes, files: all but the programs that the runtime loads when it first needs them.
    private static int CountOpen() => Directory.EnumerateFileSystemEntries("/proc/self/fd")
        .Select(path => new FileInfo(path).LinkTarget ?? string.Empty)
        .Count(target => !target.EndsWith(".dll", StringComparison.Ordinal) && !target.EndsWith(".pdb", StringComparison.Ordinal));

    /// <returns>The agent's answer: a type or a code; or how the connection ended.</returns>
    private static string Connect(string path, FuzzedHandshake handshake)
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = 20_000 };
        socket.Connect(new UnixDomainSocketEndPoint(path));
        try
        {
            var sent = handshake.Bytes.Length == 0 ? 0 : UnixFdSocket.Send(socket, handshake.Bytes.AsSpan(0, handshake.Split), handshake.Descriptors);
            while (sent < handshake.Bytes.Length)
            {
                sent += socket.Send(handshake.Bytes.AsSpan(sent));
            }
        }
        catch (Exception exception) when (exception is SocketException or LinuxException)
        {
            // Closed by the agent while this side still wrote.
            return "closed";
        }

        return handshake.Waits ? Answer(socket) : "left";
    }

    private static string Answer(Socket socket)
    {
        var buffer = new byte[64 * 1024];
        var length = 0;
        do
        {
            var received = Receive(socket, buffer.AsSpan(length));
            length += received;
            if (received == 0)
            {
                return "ended";
            }
        }
        while (buffer[length - 1] != '\n');
        var line = System.Text.Json.JsonSerializer.Deserialize(buffer.AsSpan(0, buffer.AsSpan().IndexOf((byte)'\n')), HandoffJson.Default.AgentLine);
        return line!.Code ?? line.Type;
    }

    // An agent that neither answers nor closes in the socket's time ends the test.
    private static int Receive(Socket socket, Span<byte> buffer)
    {
        try
        {
            return socket.Receive(buffer);
        }
        catch (SocketException exception) when (exception.SocketErrorCode == SocketError.ConnectionReset)
        {
            // Closed with bytes unread.
            return 0;
        }
    }

    private MeterListener ListenToDefects()
    {
        var listener = new MeterListener
        {
            InstrumentPublished = (instrument, self) =>
            {
                if (instrument == AgentMeter.HandoffDefects || instrument == AgentMeter.ReconcileDefects || instrument == AgentMeter.EventLoopFailures)
                {
                    self.EnableMeasurementEvents(instrument);
                }
            },
        };
        listener.SetMeasurementEventCallback<long>((_, value, _, _) => Interlocked.Add(ref _defects, value));
        listener.Start();
        return listener;
    }

    /// <summary>One descriptor of every kind that is no backing of the hostile VM, those of the other VM among them.</summary>
    private sealed class StrangeDescriptors : IDisposable
    {
        private readonly List<IDisposable> _owned = [];

        public StrangeDescriptors(TestVmm other)
        {
            var fresh = Keep(UserfaultfdHandle.Create());
            var poor = Keep(UserfaultfdHandle.Create());
            poor.Handshake(UffdFeatures.MissingShmem);
            var socket = Keep(new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified));
            var pipe = Keep(new System.IO.Pipes.AnonymousPipeServerStream());
            Numbers =
            [
                other.Userfaultfd.Number, other.File.Descriptor.Number, fresh.Number, poor.Number, Keep(MemoryFile.Create("fleet-test-small", 4096)).Descriptor.Number,
                Keep(FileDescriptor.OpenRead("/dev/null")).Number, Keep(FileDescriptor.OpenRead("/")).Number, Keep(FileDescriptor.OpenRead("/proc/self/mem")).Number,
                Keep(FileDescriptor.OpenRead("/etc/passwd")).Number, (int)socket.Handle, (int)pipe.SafePipeHandle.DangerousGetHandle(),
            ];
        }

        public int[] Numbers { get; }

        public void Dispose() => _owned.ForEach(owned => owned.Dispose());

        private T Keep<T>(T owned)
            where T : IDisposable
        {
            _owned.Add(owned);
            return owned;
        }
    }
}
