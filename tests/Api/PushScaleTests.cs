using System.Diagnostics;
using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using Fleet.Api.Agents.Push;
using Fleet.Api.Startup;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;
using Microsoft.AspNetCore.Server.Kestrel.Transport.Sockets;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;
using Microsoft.Extensions.Time.Testing;

namespace Fleet.Api.Tests;

/// <summary>What keeps one API process standing under many streams: admission, deadlines, a shutdown that spreads the agents out.</summary>
public sealed class PushScaleTests
{
    [Fact]
    public async Task Streams_BeyondThoseThatMayWait_AreToldWhenToComeBack_AndTheOthersGetTheirTurn()
    {
        await using var api = await ApiHost.StartAsync(args: ["--Fleet:SnapshotsAtOnce=1", "--Fleet:SnapshotsWaiting=1"]);
        var first = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var second = await (await api.EnrolAsync("host-b")).ClaimAsync();
        var admission = api.Services.GetRequiredService<SnapshotAdmission>();
        Task<string> waiting;
        using (var busy = await admission.EnterAsync(CancellationToken.None))
        {
            Assert.True(busy.IsAcquired);
            waiting = first.OpenStreamAsync();
            await UntilAsync(() => admission.Waiting == 1);

            var refused = await second.Client.GetAsync(new Uri(Routes.Desired("host-b", second.Incarnation), UriKind.Relative));
            var after = refused.Headers.RetryAfter?.Delta;
            await refused.ProblemAsync(HttpStatusCode.ServiceUnavailable, "snapshots-busy");
            Assert.True(after > TimeSpan.Zero && after <= Stagger.Window(2, 1), $"Retry-After was {after}.");
            Assert.False(waiting.IsCompleted);
        }

        Assert.Equal(DesiredEvents.SnapshotBegin, await waiting);
        Assert.Equal(DesiredEvents.SnapshotBegin, await second.OpenStreamAsync());
    }

    /// <summary>The kernel would tell of a dead peer only after a quarter of an hour.</summary>
    [Fact]
    public async Task Stream_WhoseClientStopsReading_IsGivenUp_AndNoOther()
    {
        var time = new FakeTimeProvider(DateTimeOffset.UnixEpoch.AddYears(60));
        await using var api = await ApiHost.StartAsync(time: time, args: ["--Fleet:StreamLifetime=1.00:00:00"]);
        var stalled = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var reading = await (await api.EnrolAsync("host-b")).ClaimAsync();
        await CreateLargeAsync(api, "vm-1", "host-a");
        var hub = api.Services.GetRequiredService<PushHub>();
        using var stop = new CancellationTokenSource(TimeSpan.FromMinutes(5));
        var other = Task.Run(async () =>
        {
            await foreach (var (_, _) in reading.StreamAsync(new DesiredView(), stop))
            {
            }
        });
        using var socket = await StalledReader.OpenAsync(api, stalled);
        await UntilAsync(() => hub.Count == 2);
        for (var round = 0; hub.Count == 2; round++)
        {
            // Each sends the VM whole, a quarter of a megabyte, until the buffers of both kernels are full.
            Assert.True(round < 150, "The stream of a client that does not read was kept.");
            await ChangeLargeAsync(api, "vm-1", "host-a", round);
            time.Advance(TimeSpan.FromSeconds(30));
        }

        Assert.Contains("fleet_push_streams_ended{why=\"stalled\"}", await api.Admin.GetStringAsync(new Uri("/metrics", UriKind.Relative)), StringComparison.Ordinal);
        Assert.False(other.IsCompleted);
        await stop.CancelAsync();
        await other;
    }

    /// <summary>What an idle stream carries never fills a buffer: a peer that vanished is found by the kernel, on each accepted connection.</summary>
    [Fact]
    public async Task Connections_InheritTheDeadlineForDeadPeers()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "TCP_USER_TIMEOUT is Linux's.");
        var transport = new SocketTransportOptions();
        new DeadPeers(Options.Create(new FleetOptions { WriteDeadline = TimeSpan.FromSeconds(17) })).Configure(transport);
        using var listener = transport.CreateBoundListenSocket(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen();
        using var client = new Socket(SocketType.Stream, ProtocolType.Tcp);
        await client.ConnectAsync(listener.LocalEndPoint!);
        using var accepted = await listener.AcceptAsync();
        var value = new byte[4];
        accepted.GetRawSocketOption(DeadPeers.IPPROTO_TCP, DeadPeers.TCP_USER_TIMEOUT, value);
        Assert.Equal(17_000, BitConverter.ToInt32(value));
    }

    [Fact]
    public async Task Shutdown_WithManyStreams_TellsEachWhenToComeBack_AndDoesNotWaitForThoseThatDoNotRead()
    {
        const int each = 3;
        await using var api = await ApiHost.StartAsync(args: ["--Fleet:ReconnectsPerSecond=1"]);
        var hub = api.Services.GetRequiredService<PushHub>();
        var stalled = new List<StalledReader>();
        var views = new List<DesiredView>();
        var readers = new List<Task>();
        using var stop = new CancellationTokenSource();
        for (var host = 0; host < each; host++)
        {
            var silent = await (await api.EnrolAsync($"silent-{host}")).ClaimAsync();
            stalled.Add(await StallAsync(api, silent, $"vm-{host}"));

            var agent = await (await api.EnrolAsync($"reading-{host}")).ClaimAsync();
            var view = new DesiredView();
            views.Add(view);
            readers.Add(Task.Run(async () =>
            {
                await foreach (var (_, _) in agent.StreamAsync(view, stop))
                {
                }
            }));
        }

        await UntilAsync(() => hub.Count == 2 * each && views.TrueForAll(view => view.Retry > TimeSpan.Zero));
        var before = views.ConvertAll(view => view.Retry);
        stop.CancelAfter(TimeSpan.FromMinutes(1));
        await api.StopAsync().WaitAsync(TimeSpan.FromSeconds(60), CancellationToken.None);
        await Task.WhenAll(readers);

        Assert.False(stop.IsCancellationRequested, "A stream did not end by itself.");
        var window = Stagger.Window(2 * each, 1);
        Assert.All(views.Zip(before), view =>
        {
            Assert.NotEqual(view.Second, view.First.Retry);
            Assert.InRange(view.First.Retry, TimeSpan.FromSeconds(1), window);
        });
        Assert.Equal(0, hub.Count);
        stalled.ForEach(reader => reader.Dispose());
    }

    /// <summary>A stream of which more has been written than the buffers of both kernels hold (4 MiB at most, by default), and nothing read.</summary>
    private static async Task<StalledReader> StallAsync(ApiHost api, TestAgent agent, string vm)
    {
        await CreateLargeAsync(api, vm, agent.Host);
        var reader = await StalledReader.OpenAsync(api, agent);
        for (var round = 0; round < 25; round++)
        {
            await ChangeLargeAsync(api, vm, agent.Host, round);
        }

        return reader;
    }

    private static async Task CreateLargeAsync(ApiHost api, string vm, string host)
    {
        await api.Admin.CreateVmAsync(vm, host, [new("0x0", 1L << 30, 4096)]);
        await api.Admin.AddPagesAsync(vm, [.. Enumerable.Range(0, 10_000).Select(frame => new PageReport(frame * 3, 12))]);
    }

    private static async Task ChangeLargeAsync(ApiHost api, string vm, string host, int round) =>
        await (await api.Admin.PutAsJsonAsync(
            Routes.Vm(vm), new VmRequest(host, [new("0x0", 1L << 30, 4096)], new VmAttach("handoff", Socket: $"/run/{round}.sock")), FleetJson.Default.VmRequest))
            .ReadAsync(FleetJson.Default.VmResource);

    private static async Task UntilAsync(Func<bool> condition)
    {
        var started = Stopwatch.GetTimestamp();
        while (!condition())
        {
            Assert.True(Stopwatch.GetElapsedTime(started) < TimeSpan.FromSeconds(60), "The condition did not come about in 60 s.");
            await Task.Delay(5); // allowed: polling with a deadline
        }
    }
}
