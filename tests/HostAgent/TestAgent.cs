using System.Diagnostics;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Detect;
using Fleet.HostAgent.Gate;
using Fleet.HostAgent.Observe;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Restore;
using Fleet.HostAgent.Spool;
using Fleet.HostAgent.State;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace Fleet.HostAgent.Tests;

/// <summary>The whole agent, with a control plane that nobody runs: it must enforce all the same (I6).</summary>
internal sealed class TestAgent : IAsyncDisposable
{
    private readonly IHost _host;
    private bool _disposed;

    private TestAgent(IHost host, string root) => (_host, Root) = (host, root);

    public string Root { get; }

    public DesiredState Desired => _host.Services.GetRequiredService<DesiredState>();

    public DesiredStore Store => _host.Services.GetRequiredService<DesiredStore>();

    public VmTable Table => _host.Services.GetRequiredService<VmTable>();

    public ReportSpool Spool => _host.Services.GetRequiredService<ReportSpool>();

    public GateOutbox Outbox => _host.Services.GetRequiredService<GateOutbox>();

    public StorePromise Promise => _host.Services.GetRequiredService<StorePromise>();

    public Stating Stating => _host.Services.GetRequiredService<Stating>();

    public IServiceProvider Services => _host.Services;

    public AccessObserver Observer => _host.Services.GetRequiredService<AccessObserver>();

    public DetectionQueue Detection => _host.Services.GetRequiredService<DetectionQueue>();

    public WorkSet Work => _host.Services.GetRequiredService<WorkSet>();

    public string Socket(string vm) => Path.Combine(Root, "vmm", $"{vm}.sock");

    public static Task<TestAgent> StartAsync(string root, params DesiredVm[] desired) => StartAsync(root, "marker", desired);

    public static Task<TestAgent> StartAsync(string root, string policy, params DesiredVm[] desired) =>
        StartAsync(root, new Dictionary<string, string?> { ["Agent:Policy"] = policy }, null, desired);

    public static Task<TestAgent> StartAsync(string root, string policy, IEnumerable<(string Name, string Value)> settings, DesiredVm[] desired) => StartAsync(
        root, new Dictionary<string, string?>(settings.Select(setting => KeyValuePair.Create(setting.Name, (string?)setting.Value))) { ["Agent:Policy"] = policy }, null, desired);

    /// <param name="settings">Beside or instead of the tests' own.</param>
    /// <param name="services">Replaces services of the agent.</param>
    public static async Task<TestAgent> StartAsync(
        string root, IReadOnlyDictionary<string, string?> settings, Action<IServiceCollection>? services, params DesiredVm[] desired)
    {
        var builder = Host.CreateEmptyApplicationBuilder(new HostApplicationBuilderSettings { ContentRootPath = root });
        builder.Configuration.AddInMemoryCollection(new Dictionary<string, string?>
        {
            ["Agent:Host"] = "host-a",
            ["Agent:ControlPlane"] = "http://127.0.0.1:9",
            ["Agent:JoinToken"] = "nobody answers",
            ["Agent:StateFolder"] = root,
            ["Agent:VerifySeconds"] = "3600",
            ["Agent:LogFormat"] = "text",
        });
        builder.Configuration.AddInMemoryCollection(settings);
        builder.AddHostAgent();
        services?.Invoke(builder.Services);
        var agent = new TestAgent(builder.Build(), root);
        var store = agent._host.Services.GetRequiredService<DesiredStore>();
        foreach (var vm in desired)
        {
            store.Save(vm);
        }

        await agent._host.StartAsync(TestContext.Current.CancellationToken);
        return agent;
    }

    public static DesiredVm Vm(TestVmm vmm, long generation, params PageKey[] pages) =>
        new(vmm.Vm, "host-a", vmm.Layout, new VmAttach(AttachKinds.Handoff), 1, generation, 1, PoisonDigest.Compute(vmm.Vm, 1, pages), pages);

    /// <summary>Connects as soon as the agent listens.</summary>
    public async Task<TestChannel> ConnectAsync(string vm)
    {
        await UntilAsync(() => File.Exists(Socket(vm)));
        var channel = new TestChannel();
        await channel.ConnectAsync(Socket(vm));
        return channel;
    }

    public async Task<TestChannel> AttachAsync(TestVmm vmm)
    {
        var channel = await ConnectAsync(vmm.Vm);
        channel.SendHandoff(vmm.Message(), vmm.Descriptors);
        var line = await channel.ReceiveAsync();
        Assert.Equal((AgentLine.Attached, (string?)null), (line?.Type, line?.Reason));
        return channel;
    }

    public async Task AdoptAndWaitAsync(DesiredVm vm)
    {
        Assert.Equal(DesiredVerdict.Adopt, await Desired.AdoptAsync(vm, TestContext.Current.CancellationToken));
        await UntilAsync(() => Table.Find(vm.Vm)?.Status is { State: EnforcementStates.Armed } status && status.ArmedGeneration == vm.Generation);
    }

    /// <summary>Has the agent look at the VM, and waits until it has, from the first step to the last.</summary>
    public async Task LookAsync(string vm)
    {
        // The first of the two may have begun before it was asked for.
        for (var look = 0; look < 2; look++)
        {
            var before = Table.Find(vm)!.StatusAt;
            Work.Add(vm);
            await UntilAsync(() => Table.Find(vm)!.StatusAt != before);
        }
    }

    /// <summary>Waits for something that another thread brings about; the deadline only ends a test that failed.</summary>
    public static async Task UntilAsync(Func<bool> condition)
    {
        var started = Stopwatch.GetTimestamp();
        while (!condition())
        {
            Assert.True(Stopwatch.GetElapsedTime(started) < TimeSpan.FromSeconds(60), "the condition did not come about in 60 s");
            await Task.Delay(5, TestContext.Current.CancellationToken); // allowed: polling with a deadline
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _disposed, true))
        {
            return;
        }

        await _host.StopAsync(CancellationToken.None);
        _host.Dispose();
    }
}
