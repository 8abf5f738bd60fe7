using System.CommandLine;
using System.Globalization;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;
using Fleet.Demo.Running;
using Spectre.Console;

namespace Fleet.Bench;

/// <summary>What an agent costs while nothing happens: processor time over a period, and resident memory at its end.</summary>
internal static class Idle
{
    private const string Host = "host-a";
    private const int PagesPerVm = 100;

    public static Command Command()
    {
        var agent = new Option<string?>("--agent") { Description = "The agent's program, such as the published one; by default the one built with this." };
        var vms = new Option<int[]>("--vms") { Description = "Numbers of attached VMs.", DefaultValueFactory = _ => [0, 10], AllowMultipleArgumentsPerToken = true };
        var seconds = new Option<int>("--seconds") { Description = "How long to look.", DefaultValueFactory = _ => 60 };
        var command = new Command("idle", "Processor time and resident memory of an agent whose VMs are armed and do nothing.") { agent, vms, seconds };
        command.SetAction((parsed, cancellationToken) =>
            RunAsync(parsed.GetValue(agent), parsed.GetRequiredValue(vms), TimeSpan.FromSeconds(parsed.GetRequiredValue(seconds)), cancellationToken));
        return command;
    }

    private static async Task RunAsync(string? program, int[] counts, TimeSpan period, CancellationToken cancellationToken)
    {
        var table = new Table().AddColumns("VMs", "armed pages", "CPU seconds", "of one CPU", "RSS MiB", "threads");
        foreach (var count in counts)
        {
            await using var fleet = await LocalFleet.StartAsync(cancellationToken);
            fleet.AgentProgram = program ?? Programs.HostAgent;
            var agent = await fleet.StartAgentAsync(Host, cancellationToken);
            for (var i = 0; i < count; i++)
            {
                await AddVmAsync(fleet, $"vm-{i}", cancellationToken);
            }

            // The start's own work ends meanwhile.
            await Task.Delay(TimeSpan.FromSeconds(15), cancellationToken); // allowed: part of the measurement
            var before = CpuSeconds(agent.Pid);
            await Task.Delay(period, cancellationToken); // allowed: the period that is measured
            var used = CpuSeconds(agent.Pid) - before;
            table.AddRow(
                $"{count}", $"{count * PagesPerVm}", $"{used:0.00}", $"{used / period.TotalSeconds:0.0 %}", $"{Status(agent.Pid, "VmRSS:") / 1024.0:0.0}", $"{Status(agent.Pid, "Threads:")}");
        }

        AnsiConsole.Write(table);
    }

    private static async Task AddVmAsync(LocalFleet fleet, string vm, CancellationToken cancellationToken)
    {
        await fleet.Client.PutVmAsync(vm, new VmRequest(Host, [new MemoryRegion("0x0", 64 << 20, 4096)], new VmAttach(AttachKinds.Handoff)), cancellationToken);
        await fleet.StartVmmAsync(vm, "64M", Host, cancellationToken, new VmmStart(Vcpu: "software"));
        await fleet.Client.AddPagesAsync(
            vm, new AddPagesRequest([.. Enumerable.Range(0, PagesPerVm).Select(i => new PageReport(4096 + (i * 5), 12))], "measurement"), cancellationToken);
        await LocalFleet.UntilAsync(
            async () => (await fleet.Client.GetVmAsync(vm, TimeSpan.FromSeconds(5), cancellationToken)).Enforcement is [{ State: EnforcementStates.Armed }], $"{vm} to be armed", null, cancellationToken);
    }

    // Fields 14 and 15 of /proc/PID/stat, in ticks of 10 ms (proc_pid_stat(5)).
    private static double CpuSeconds(int pid)
    {
        var stat = File.ReadAllText(string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/stat"));
        var fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
        return (long.Parse(fields[14 - 3], CultureInfo.InvariantCulture) + long.Parse(fields[15 - 3], CultureInfo.InvariantCulture)) / 100.0;
    }

    private static long Status(int pid, string field) => long.Parse(
        File.ReadLines(string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/status")).Single(line => line.StartsWith(field, StringComparison.Ordinal))
            .Split((char[])[' ', '\t'], StringSplitOptions.RemoveEmptyEntries)[1],
        CultureInfo.InvariantCulture);
}
