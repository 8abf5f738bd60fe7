using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Observe;
using Fleet.HostAgent.Options;
using Fleet.HostAgent.Reconcile;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.ControlPlane;

/// <summary>Tells the control plane what this host has confirmed, at the interval it asks for and at once on a change.</summary>
public sealed class Heartbeats(
    ControlPlaneClient client, DesiredStream stream, VmTable table, StatusSignal status, AccessObserver observer, IOptions<AgentOptions> options, TimeProvider time)
{
    private volatile bool _connected;

    /// <summary>The last heartbeat was answered.</summary>
    public bool Connected => _connected;

    /// <summary>Runs until a call fails.</summary>
    public async Task RunAsync(ClaimResult claim, CancellationToken cancellationToken)
    {
        try
        {
            await BeatAsync(claim, cancellationToken);
        }
        finally
        {
            _connected = false;
        }
    }

    private async Task BeatAsync(ClaimResult claim, CancellationToken cancellationToken)
    {
        var interval = Parse(claim.HeartbeatInterval);
        while (true)
        {
            var answer = await client.HeartbeatAsync(new HeartbeatRequest(claim.Incarnation, Statuses(), observer.Dropped), cancellationToken);
            _connected = true;
            interval = Parse(answer.HeartbeatInterval);
            foreach (var vm in answer.Refetch)
            {
                await stream.RefetchAsync(vm, cancellationToken);
            }

            await status.WaitAsync(interval, time, cancellationToken);
        }
    }

    /// <summary>What may be said now: a claim whose evidence is overdue is not repeated (DESIGN 8).</summary>
    internal List<VmStatus> Statuses()
    {
        var longest = TimeSpan.FromSeconds(options.Value.VerifySeconds * 3);
        var statuses = new List<VmStatus>();
        foreach (var entry in table.All)
        {
            if (entry.Desired is not { } desired)
            {
                continue;
            }

            statuses.Add(entry.Status is { } status && time.GetElapsedTime(entry.StatusAt) <= longest
                ? status
                : Reconciler.Unconfirmed(desired, EnforcementStates.Pending, "verification-overdue"));
        }

        return statuses;
    }

    private static TimeSpan Parse(string text) =>
        DurationText.TryParse(text, out var duration) && duration > TimeSpan.Zero ? duration : TimeSpan.FromSeconds(5);
}
