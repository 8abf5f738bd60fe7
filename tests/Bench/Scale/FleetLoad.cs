using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using Fleet.Demo.Running;
using Spectre.Console;

namespace Fleet.Bench.Scale;

/// <summary>
/// One control plane under many agents: what a connection costs, how fast a change for each reaches each, what heartbeats cost the
/// database, and how the agents come back when the control plane is restarted under them. Requests that do nothing are the baseline.
/// </summary>
internal static class FleetLoad
{
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(5);
    private static readonly TimeSpan Settling = TimeSpan.FromSeconds(5);

    public static Command Command()
    {
        var agents = new Option<int>("--agents") { Description = "Agents, each with a host, a credential and a VM of its own.", DefaultValueFactory = _ => 5000 };
        var seconds = new Option<int>("--seconds") { Description = "How long nothing but heartbeats is measured.", DefaultValueFactory = _ => 60 };
        var command = new Command("fleet", "Many agents on one control plane: connect, a change for each, heartbeats, restart.") { agents, seconds };
        command.SetAction((parsed, cancellationToken) => RunAsync(parsed.GetRequiredValue(agents), parsed.GetRequiredValue(seconds), cancellationToken));
        return command;
    }

    private static async Task<int> RunAsync(int agents, int seconds, CancellationToken cancellationToken)
    {
        if (OpenFiles() is { } limit && limit < (2 * agents) + 500)
        {
            AnsiConsole.WriteLine($"{agents} agents need {(2 * agents) + 500} open files in each process, and the limit is {limit}: raise it (ulimit -n), or use fewer.");
            return 1;
        }

        var table = new Table().AddColumns("", "first", "median", "99 %", "last");
        await using var fleet = await LocalFleet.StartAsync(cancellationToken);
        using var load = new LoadFleet(fleet.Address, agents);
        var started = Stopwatch.GetTimestamp();
        await load.EnrolAsync(fleet.Client, cancellationToken);
        Say($"{agents} agents enrolled, with a VM each, and claimed: {Stopwatch.GetElapsedTime(started).TotalSeconds:0.0} s");

        // Begun anew, so that what enrolling left in its memory is not counted as, or hides, the connections'.
        await fleet.Api!.TerminateAsync();
        await fleet.StartApiAsync(cancellationToken);
        await Task.Delay(Settling, cancellationToken); // allowed: a measurement's pace
        var before = ApiProbe.ResidentKiB(fleet.Api.Pid);
        var connected = await OpenedAsync(load, () => Task.Run(load.Connect, cancellationToken), cancellationToken);
        Row(table, "connect, all at once", connected.Spread());
        await SayOpeningsAsync("Connecting", fleet, cancellationToken);
        await Task.Delay(Settling, cancellationToken); // allowed: a measurement's pace
        var after = ApiProbe.ResidentKiB(fleet.Api.Pid);
        Say($"Memory of the control plane: {before / 1024} MiB without, {after / 1024} MiB with the streams: {(double)(after - before) / agents:0.0} KiB a connection");

        load.Beat();
        await HeartbeatsAsync(fleet, seconds, cancellationToken);
        await BaselineAsync(table, load, fleet, agents, cancellationToken);
        await ChangesAsync(table, load, fleet, agents, cancellationToken);
        Say($"Memory of the control plane after that: {ApiProbe.ResidentKiB(fleet.Api.Pid) / 1024} MiB");
        await RestartAsync(table, load, fleet, cancellationToken);
        await load.StopAsync();
        AnsiConsole.Write(table);
        return 0;
    }

    private static async Task HeartbeatsAsync(LocalFleet fleet, int seconds, CancellationToken cancellationToken)
    {
        // One interval later all of them are at it.
        await Task.Delay(TimeSpan.FromSeconds(20), cancellationToken); // allowed: a measurement's pace
        var before = await ApiProbe.MetricsAsync(fleet.Client.Http, cancellationToken);
        var started = Stopwatch.GetTimestamp();
        await Task.Delay(TimeSpan.FromSeconds(seconds), cancellationToken); // allowed: a measurement's pace
        var after = await ApiProbe.MetricsAsync(fleet.Client.Http, cancellationToken);
        var elapsed = Stopwatch.GetElapsedTime(started).TotalSeconds;
        var transactions = after.GetValueOrDefault(ApiProbe.Transactions) - before.GetValueOrDefault(ApiProbe.Transactions);
        var beats = after.GetValueOrDefault(ApiProbe.Heartbeats) - before.GetValueOrDefault(ApiProbe.Heartbeats);
        Say($"Heartbeats alone, {elapsed:0} s: {beats:0} heartbeats ({beats / elapsed:0} a second), {transactions:0} transactions ({transactions / elapsed:0.00} a second)");
    }

    private static async Task BaselineAsync(Table table, LoadFleet load, LocalFleet fleet, int agents, CancellationToken cancellationToken)
    {
        var (sent, answered) = (new Arrivals(agents), new Arrivals(agents));
        await load.DoNothingAsync(fleet.Client, sent, answered, cancellationToken);
        Row(table, "baseline: a request that does nothing, to its answer", answered.Since(sent));
        Row(table, "baseline: all of them, from the first request", answered.Spread());
    }

    private static async Task ChangesAsync(Table table, LoadFleet load, LocalFleet fleet, int agents, CancellationToken cancellationToken)
    {
        var (sent, answered, delivered) = (new Arrivals(agents), new Arrivals(agents), new Arrivals(agents));
        void Delivered(LoadAgent agent) => delivered.Add(agent.Host);
        foreach (var agent in load.Agents)
        {
            agent.Changed += Delivered;
        }

        await load.ChangeAsync(fleet.Client, sent, answered, cancellationToken);
        await delivered.AllAsync("changes delivered", Patience, cancellationToken);
        Row(table, "a change, request to answer (durable)", answered.Since(sent));
        Row(table, "a change, request to its agent", delivered.Since(sent));
        Row(table, "all changes at their agents, from the first request", delivered.Spread());
    }

    private static async Task RestartAsync(Table table, LoadFleet load, LocalFleet fleet, CancellationToken cancellationToken)
    {
        TimeSpan stopped = default, up = default;
        var back = await OpenedAsync(
            load,
            async () =>
            {
                var started = Stopwatch.GetTimestamp();
                await fleet.Api!.TerminateAsync();
                stopped = Stopwatch.GetElapsedTime(started);
                await fleet.StartApiAsync(cancellationToken);
                up = Stopwatch.GetElapsedTime(started);
            },
            cancellationToken);
        Row(table, "back after the restart, from the signal to stop", back.Spread());
        Say($"Restart: stopped after {stopped.TotalSeconds:0.0} s, ready again after {up.TotalSeconds:0.0} s. Pauses asked for: up to {load.Agents.Max(agent => agent.Retry).TotalSeconds:0.0} s");
        await SayOpeningsAsync("Coming back", fleet, cancellationToken);
    }

    /// <summary>Of this life of the control plane.</summary>
    private static async Task SayOpeningsAsync(string what, LocalFleet fleet, CancellationToken cancellationToken)
    {
        var metrics = await ApiProbe.MetricsAsync(fleet.Client.Http, cancellationToken);
        double Opened(string kind) => metrics.GetValueOrDefault(ApiProbe.Opening(kind));
        Say($"{what}: {Opened("snapshot"):0} snapshots, {Opened("unchanged"):0} unchanged, {Opened("refused"):0} times asked to come later");
    }

    /// <summary>Does something that makes every agent open a stream, and waits until all have.</summary>
    private static async Task<Arrivals> OpenedAsync(LoadFleet load, Func<Task> act, CancellationToken cancellationToken)
    {
        var opened = new Arrivals(load.Agents.Count);
        void Opened(LoadAgent agent) => opened.Add(agent.Host);
        foreach (var agent in load.Agents)
        {
            agent.Opened += Opened;
        }

        await act();
        await opened.AllAsync("streams open", Patience, cancellationToken);
        foreach (var agent in load.Agents)
        {
            agent.Opened -= Opened;
        }

        return opened;
    }

    private static void Row(Table table, string what, Spread spread) =>
        table.AddRow(what, Text(spread.First), Text(spread.Median), Text(spread.P99), Text(spread.Last));

    private static string Text(TimeSpan time) =>
        time < TimeSpan.FromSeconds(1) ? $"{time.TotalMilliseconds:0} ms" : $"{time.TotalSeconds:0.0} s";

    private static void Say(string line) => AnsiConsole.WriteLine(line);

    // The hard limit: the runtime raises the soft one to it.
    private static long? OpenFiles()
    {
        var line = File.ReadLines("/proc/self/limits").First(line => line.StartsWith("Max open files", StringComparison.Ordinal));
        return long.TryParse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[4], NumberStyles.None, CultureInfo.InvariantCulture, out var limit) ? limit : null;
    }
}
