using System.CommandLine;
using System.Diagnostics;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;
using Fleet.Demo.Running;
using Fleet.TinyVmm.Control;
using Spectre.Console;

namespace Fleet.Bench;

/// <summary>
/// How long a guest stands still for the gate: from the switchover call to the permit, and to the guest running on the target.
/// The run without poisoned pages is the baseline of the others.
/// </summary>
internal static class Blackout
{
    private const long MemoryBytes = 256 << 20;
    private const string Memory = "256M";
    private const string Vm = "vm-1";

    public static Command Command()
    {
        var pages = new Option<int[]>("--pages")
        {
            Description = "Numbers of poisoned pages to measure with.",
            DefaultValueFactory = _ => [0, 100, 1_000, 10_000],
            AllowMultipleArgumentsPerToken = true,
        };
        var vcpu = new Option<string>("--vcpu") { Description = "kvm or software.", DefaultValueFactory = _ => "software" };
        vcpu.AcceptOnlyFromAmong("kvm", "software");
        var command = new Command("blackout", "Switchover call to permit, of a live VM of 256 MiB with poisoned pages.") { pages, vcpu };
        command.SetAction((parsed, cancellationToken) => RunAsync(parsed.GetRequiredValue(pages), parsed.GetRequiredValue(vcpu), cancellationToken));
        return command;
    }

    private static async Task RunAsync(int[] counts, string vcpu, CancellationToken cancellationToken)
    {
        var table = new Table().AddColumns("pages", "stream ms", "call to permit ms", "call to running ms", "permit, ratio to the first");
        double? baseline = null;
        foreach (var count in counts)
        {
            var (stream, permit, running) = await MeasureAsync(count, vcpu, cancellationToken);
            baseline ??= permit.TotalMilliseconds;
            table.AddRow(
                $"{count}", $"{stream.TotalMilliseconds:0}", $"{permit.TotalMilliseconds:0}", $"{running.TotalMilliseconds:0}", $"{permit.TotalMilliseconds / baseline:0.0}");
        }

        AnsiConsole.Write(table);
    }

    private static async Task<(TimeSpan Stream, TimeSpan Permit, TimeSpan Running)> MeasureAsync(int pages, string vcpu, CancellationToken cancellationToken)
    {
        await using var fleet = await LocalFleet.StartAsync(cancellationToken);
        await fleet.StartAgentAsync("host-a", cancellationToken);
        await fleet.StartAgentAsync("host-b", cancellationToken);
        await fleet.Client.PutVmAsync(Vm, new VmRequest("host-a", [new MemoryRegion("0x0", MemoryBytes, 4096)], new VmAttach(AttachKinds.Handoff)), cancellationToken);
        var (_, source) = await fleet.StartVmmAsync(Vm, Memory, "host-a", cancellationToken, new VmmStart(Barrier: true, Vcpu: vcpu));
        await RunsAsync(source, cancellationToken);
        if (pages > 0)
        {
            // Every fifth frame: no two of them coalesce.
            await fleet.Client.AddPagesAsync(
                Vm, new AddPagesRequest([.. Enumerable.Range(0, pages).Select(i => new PageReport(1024 + (i * 5), 12))], "measurement"), cancellationToken);
        }

        await fleet.Client.GetVmAsync(Vm, TimeSpan.FromSeconds(30), cancellationToken);
        var migrating = new Migrating(fleet, Vm, Memory, vcpu);
        var (_, target, endpoint) = await migrating.PrepareAsync("m-1", "host-b", cancellationToken);
        var started = Stopwatch.GetTimestamp();
        await source.MigrateOutAsync(endpoint, cancellationToken);
        var stream = Stopwatch.GetElapsedTime(started);
        var called = Stopwatch.GetTimestamp();
        await migrating.SwitchoverAsync("m-1", cancellationToken);
        var permit = Stopwatch.GetElapsedTime(called);
        await RunsAsync(target, cancellationToken);
        return (stream, permit, Stopwatch.GetElapsedTime(called));
    }

    private static Task RunsAsync(TinyVmmClient guest, CancellationToken cancellationToken) =>
        LocalFleet.UntilAsync(async () => (await guest.StatusAsync(cancellationToken)).State == "running", "the guest", null, cancellationToken);
}
