using System.Net.ServerSentEvents;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.HostAgent.Reconcile;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.ControlPlane;

/// <summary>
/// Follows GET /v1/hosts/{host}/desired: a snapshot that is applied whole at its end or not at all, then changes. Events are
/// hints; whatever does not fit is fetched whole.
/// </summary>
public sealed partial class DesiredStream(ControlPlaneClient client, DesiredState desired, TimeProvider time, ILogger<DesiredStream> logger)
{
    // Bookmarks keep an idle stream alive; a connection that says nothing for this long is dead, however open it looks.
    private static readonly TimeSpan Silence = TimeSpan.FromSeconds(60);

    /// <summary>Runs one connection until it ends or fails.</summary>
    /// <returns>The pause that the server asks for before the next one; null when it said nothing.</returns>
    public async Task<TimeSpan?> FollowAsync(long incarnation, CancellationToken cancellationToken)
    {
        using var response = await client.OpenDesiredAsync(incarnation, cancellationToken);
        await using var body = await response.Content.ReadAsStreamAsync(cancellationToken);
        using var silence = new CancellationTokenSource(Silence, time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(silence.Token, cancellationToken);
        var parser = SseParser.Create(body);
        List<DesiredVm>? snapshot = null;
        try
        {
            await foreach (var item in parser.EnumerateAsync(either.Token))
            {
                silence.CancelAfter(Silence);
                snapshot = await HandleAsync(item, snapshot, cancellationToken);
            }
        }
        catch (OperationCanceledException) when (silence.IsCancellationRequested && !cancellationToken.IsCancellationRequested)
        {
            throw new HttpRequestException($"the desired-state stream was silent for {Silence.TotalSeconds:0} s");
        }

        return parser.ReconnectionInterval == Timeout.InfiniteTimeSpan ? null : parser.ReconnectionInterval;
    }

    /// <summary>Fetches a VM whole, where what came did not fit or a heartbeat showed a difference.</summary>
    public async Task RefetchAsync(string vm, CancellationToken cancellationToken)
    {
        if (await client.FetchAsync(vm, cancellationToken) is { } whole)
        {
            if (await desired.AdoptAsync(whole, cancellationToken) == DesiredVerdict.Refetch)
            {
                LogBadDigest(vm, whole.Generation);
            }
        }
        else
        {
            await desired.RemoveAsync(vm, cancellationToken);
        }
    }

    private async Task<List<DesiredVm>?> HandleAsync(SseItem<string> item, List<DesiredVm>? snapshot, CancellationToken cancellationToken)
    {
        switch (item.EventType)
        {
            case DesiredEvents.SnapshotBegin:
                return [];
            case DesiredEvents.Vm when snapshot is not null:
                snapshot.Add(Parse(item, FleetJson.Default.DesiredVm));
                return snapshot;
            case DesiredEvents.SnapshotEnd when snapshot is not null:
                await ApplyAsync(snapshot, Parse(item, FleetJson.Default.SnapshotEnd), cancellationToken);
                return null;
            case DesiredEvents.Vm:
                var vm = Parse(item, FleetJson.Default.DesiredVm);
                await FollowUpAsync(vm.Vm, await desired.AdoptAsync(vm, cancellationToken), cancellationToken);
                return null;
            case DesiredEvents.Delta:
                var delta = Parse(item, FleetJson.Default.DesiredDelta);
                await FollowUpAsync(delta.Vm, await desired.ApplyAsync(delta, cancellationToken), cancellationToken);
                return snapshot;
            case DesiredEvents.VmRemoved:
                await desired.RemoveAsync(Parse(item, FleetJson.Default.DesiredVmRemoved).Vm, cancellationToken);
                return snapshot;
            default:
                // Bookmarks, and kinds that a newer control plane may send.
                return snapshot;
        }
    }

    private async Task ApplyAsync(List<DesiredVm> snapshot, SnapshotEnd end, CancellationToken cancellationToken)
    {
        if (PoisonDigest.ComputeSnapshot(snapshot.Select(vm => (vm.Vm, vm.Generation, vm.PlacementEpoch, vm.Digest))) != end.Digest)
        {
            throw new InvalidDataException("the snapshot's digest does not match its contents; it is discarded");
        }

        var refetch = await desired.ReplaceAsync(snapshot, cancellationToken);
        LogSnapshot(snapshot.Count, end.Revision);
        foreach (var vm in refetch)
        {
            await RefetchAsync(vm, cancellationToken);
        }
    }

    private async Task FollowUpAsync(string vm, DesiredVerdict verdict, CancellationToken cancellationToken)
    {
        if (verdict == DesiredVerdict.Refetch)
        {
            await RefetchAsync(vm, cancellationToken);
        }
    }

    private static T Parse<T>(SseItem<string> item, JsonTypeInfo<T> type)
    {
        try
        {
            return JsonSerializer.Deserialize(item.Data, type) ?? throw new InvalidDataException($"a {item.EventType} event without content");
        }
        catch (JsonException exception)
        {
            throw new InvalidDataException($"a {item.EventType} event could not be read", exception);
        }
    }

    [LoggerMessage(1611, LogLevel.Information, "Desired state received: {Vms} VMs at revision {Revision}")]
    private partial void LogSnapshot(int vms, long revision);

    [LoggerMessage(1612, LogLevel.Error, "VM {Vm} at generation {Generation}: the control plane's digest does not match its own set; the set known before stays armed")]
    private partial void LogBadDigest(string vm, long generation);
}
