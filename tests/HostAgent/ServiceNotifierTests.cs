using System.Net.Sockets;
using System.Text;
using Fleet.Contracts;
using Fleet.HostAgent.Service;
using Fleet.Tests.Shared;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Time.Testing;

namespace Fleet.HostAgent.Tests;

/// <summary>What a service manager hears, over a real NOTIFY_SOCKET; time is the test's, so that each tick is one step.</summary>
public sealed class ServiceNotifierTests : IDisposable
{
    private static readonly TimeSpan Watchdog = TimeSpan.FromSeconds(60);
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");
    private readonly Socket _manager = new(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
    private readonly FakeTimeProvider _time = new();
    private readonly TestVmm _vmm;

    public ServiceNotifierTests()
    {
        Requires.Userfaultfd();
        _vmm = new TestVmm();
        _manager.Bind(new UnixDomainSocketEndPoint(SocketPath));
    }

    private string SocketPath => Path.Combine(_root.FullName, "notify");

    [Fact]
    public async Task Start_WithAVmmOfAnEarlierLife_IsReadyOnlyWhenItIsVerified()
    {
        await using (var first = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1, new PageKey(5, 12))))
        {
            using var channel = await first.AttachAsync(_vmm);
        }

        // Lost while no agent ran.
        _vmm.Memory.Advise(5 * TestVmm.PageBytes, TestVmm.PageBytes, Linux.Memory.MemoryAdvice.DontNeed);
        Assert.False(_vmm.HasMarker(5));
        await using var agent = await StartAsync();

        var ready = await ReceiveAsync();

        Assert.True(_vmm.HasMarker(5));
        Assert.Equal(["READY=1", "STATUS=1 VMs: 1 armed, 0 failed; control plane not connected; 0 reports wait"], ready);
    }

    /// <summary>A watchdog that a timer feeds would never notice: here the timer ticks on, and the loop waits for a VM that somebody holds.</summary>
    [Fact]
    public async Task ReconcileLoop_Stuck_StarvesTheWatchdogUntilItMovesAgain()
    {
        await using var agent = await StartAsync(TestAgent.Vm(_vmm, 1));
        Assert.Contains("READY=1", await ReceiveAsync());
        await TickUntilAsync(IsFed);

        await agent.Table.Find("vm-1")!.Gate.WaitAsync(TestContext.Current.CancellationToken);
        agent.Work.Add("vm-1");
        // Turns of earlier pokes may still be told.
        await TickUntilAsync(message => !IsFed(message));
        for (var tick = 0; tick < 8; tick++)
        {
            Assert.Equal(["STATUS=The reconcile loop does not move; what is armed stays armed"], await TickAsync());
        }

        agent.Table.Find("vm-1")!.Gate.Release();
        await TickUntilAsync(IsFed);
    }

    [Fact]
    public async Task Stop_IsTold()
    {
        var agent = await StartAsync(TestAgent.Vm(_vmm, 1));
        Assert.Contains("READY=1", await ReceiveAsync());

        await agent.DisposeAsync();

        Assert.Contains("STOPPING=1", await ReceiveAsync());
    }

    [Theory]
    [InlineData("/run/systemd/notify", "60000000", "4711", "/run/systemd/notify", 60.0)]
    [InlineData("@name", "60000000", null, "@name", 60.0)]
    [InlineData("@name", "60000000", "1", "@name", null)]
    [InlineData("@name", null, null, "@name", null)]
    [InlineData("@name", "0", null, "@name", null)]
    [InlineData("vsock:2:1234", "1", "4711", null, 0.000001)]
    [InlineData(null, null, null, null, null)]
    public void Environment_IsReadAsTheManualSays(string? socket, string? microseconds, string? pid, string? expected, double? seconds)
    {
        var manager = ServiceManager.Parse(
            name => name switch { "NOTIFY_SOCKET" => socket, "WATCHDOG_USEC" => microseconds, "WATCHDOG_PID" => pid, _ => null }, 4711);

        Assert.Equal((expected, seconds), (manager.NotifySocket, manager.Watchdog?.TotalSeconds));
    }

    [Fact]
    public void Notify_AbstractSocket_Arrives()
    {
        var name = $"fleet-test-{Guid.NewGuid():N}";
        using var socket = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        socket.Bind(new UnixDomainSocketEndPoint("\0" + name));

        Assert.True(new ServiceManager("@" + name, null).TryNotify("READY=1"));
        var buffer = new byte[100];
        Assert.Equal("READY=1", Encoding.UTF8.GetString(buffer, 0, socket.Receive(buffer)));
        Assert.False(new ServiceManager("/nobody/listens", null).TryNotify("READY=1"));
    }

    public void Dispose()
    {
        _vmm.Dispose();
        _manager.Dispose();
        _root.Delete(recursive: true);
    }

    private Task<TestAgent> StartAsync(params Contracts.Agents.DesiredVm[] desired) => TestAgent.StartAsync(
        _root.FullName, new Dictionary<string, string?>(),
        services =>
        {
            services.AddSingleton(new ServiceManager(SocketPath, Watchdog));
            services.AddSingleton<TimeProvider>(_time);
        },
        desired);

    private static bool IsFed(string[] message) => message.Contains("WATCHDOG=1");

    // The loop makes its turn on a thread of its own, and a tick may come before it.
    private async Task TickUntilAsync(Predicate<string[]> condition)
    {
        for (var tick = 0; !condition(await TickAsync()); tick++)
        {
            Assert.True(tick < 1000, "it did not come about in 1000 ticks");
        }
    }

    // One message of each tick, whatever it says.
    private async Task<string[]> TickAsync()
    {
        _time.Advance(Watchdog / 4);
        return await ReceiveAsync();
    }

    private async Task<string[]> ReceiveAsync()
    {
        var buffer = new byte[1000];
        var length = await _manager.ReceiveAsync(buffer, TestContext.Current.CancellationToken).AsTask().WaitAsync(TimeSpan.FromSeconds(60));
        return Encoding.UTF8.GetString(buffer, 0, length).Split('\n');
    }
}
