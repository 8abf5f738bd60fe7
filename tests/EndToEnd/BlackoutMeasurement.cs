using System.Diagnostics;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;
using Fleet.Demo.Running;
using Fleet.Tests.Shared;

namespace Fleet.EndToEnd.Tests;

/// <summary>Figures, not assertions: run with <c>-explicit only -class Fleet.EndToEnd.Tests.BlackoutMeasurement</c>.</summary>
public sealed class BlackoutMeasurement
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Theory(Explicit = true)]
    [InlineData(0)]
    [InlineData(100)]
    [InlineData(1_000)]
    [InlineData(10_000)]
    public async Task Switchover_CallToPermit(int pages)
    {
        Requires.Userfaultfd();
        await using var fleet = await LocalFleet.StartAsync(Cancelled);
        await fleet.StartAgentAsync("host-a", Cancelled);
        await fleet.StartAgentAsync("host-b", Cancelled);
        await fleet.Client.PutVmAsync("vm-1", new VmRequest("host-a", [new MemoryRegion("0x0", 256 << 20, 4096)], new VmAttach(AttachKinds.Handoff)), Cancelled);
        var (_, source) = await fleet.StartVmmAsync("vm-1", "256M", "host-a", Cancelled, new VmmStart(Barrier: true, Vcpu: "software"));
        await LocalFleet.UntilAsync(async () => (await source.StatusAsync(Cancelled)).State == "running", "the guest", null, Cancelled);
        if (pages > 0)
        {
            await fleet.Client.AddPagesAsync("vm-1", new AddPagesRequest([.. Enumerable.Range(0, pages).Select(i => new PageReport(1024 + (i * 5), 12))], "measurement"), Cancelled);
        }

        await fleet.Client.GetVmAsync("vm-1", TimeSpan.FromSeconds(30), Cancelled);
        var migrating = new Migrating(fleet, "vm-1", "256M", "software");
        var (_, target, endpoint) = await migrating.PrepareAsync("m-1", "host-b", Cancelled);
        var started = Stopwatch.GetTimestamp();
        await source.MigrateOutAsync(endpoint, Cancelled);
        var streamed = Stopwatch.GetElapsedTime(started);
        var called = Stopwatch.GetTimestamp();
        await migrating.SwitchoverAsync("m-1", Cancelled);
        var permit = Stopwatch.GetElapsedTime(called);
        await LocalFleet.UntilAsync(async () => (await target.StatusAsync(Cancelled)).State == "running", "the guest on host-b", null, Cancelled);
        var running = Stopwatch.GetElapsedTime(called);
        TestContext.Current.TestOutputHelper!.WriteLine(
            $"{pages} pages: stream {streamed.TotalMilliseconds:0} ms, switchover call to permit {permit.TotalMilliseconds:0} ms, to the guest running {running.TotalMilliseconds:0} ms");
        Assert.Equal("host-b", (await fleet.Client.GetVmAsync("vm-1", null, Cancelled)).Host);
    }
}
