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
    // Bookmarks keep an idle stream alive. A connection without any for this many intervals is dead, however open it looks.
    private const int MissedBookmarks = 3;
    private static readonly TimeSpan ShortestSilence = TimeSpan.FromSeconds(15);
    private static readonly TimeSpan UsualInterval = TimeSpan.FromSeconds(20);

    // After an answer that cannot be, the next connection asks for everything.
    private bool _distrusted;

    /// <summary>Runs one connection until it ends or fails.</summary>
    /// <returns>The pause that the server asks for before the next one; null when it said nothing.</returns>
    public async Task<TimeSpan?> FollowAsync(long incarnation, CancellationToken cancellationToken)
    {
        var holds = _distrusted ? null : desired.Holds();
        _distrusted = false;
        using var response = await client.OpenDesiredAsync(incarnation, holds, cancellationToken);
        await using var body = await response.Content.ReadAsStreamAsync(cancellationToken);
        var longest = SilenceOf(response);
        using var silence = new CancellationTokenSource(longest, time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(silence.Token, cancellationToken);
        var parser = SseParser.Create(body);
        List<DesiredVm>? snapshot = null;
        try
        {
            await foreach (var item in parser.EnumerateAsync(either.Token))
            {
                silence.CancelAfter(longest);
                if (item.EventType == DesiredEvents.Unchanged)
                {
                    TakeUnchanged(Parse(item, FleetJson.Default.Unchanged), holds);
                    continue;
                }

                snapshot = await HandleAsync(item, snapshot, cancellationToken);
            }
        }
        catch (OperationCanceledException) when (silence.IsCancellationRequested && !cancellationToken.IsCancellationRequested)
        {
            throw new HttpRequestException($"the desired-state stream was silent for {longest.TotalSeconds:0} s");
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

    // What is known stays. It was compared whole, and whatever has moved on since is newer than that.
    private void TakeUnchanged(Unchanged unchanged, string? holds)
    {
        if (holds is null || unchanged.Digest != holds)
        {
            _distrusted = true;
            throw new InvalidDataException("the control plane confirmed something that this host did not say to hold");
        }

        LogUnchanged(unchanged.Revision);
    }

    private static TimeSpan SilenceOf(HttpResponseMessage response)
    {
        var text = response.Headers.TryGetValues(Routes.BookmarkInterval, out var values) ? values.FirstOrDefault() : null;
        var interval = DurationText.TryParse(text, out var told) && told > TimeSpan.Zero ? told : UsualInterval;
        var longest = interval * MissedBookmarks;
        return longest > ShortestSilence ? longest : ShortestSilence;
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

    [LoggerMessage(1613, LogLevel.Information, "Desired state is what this host holds already, at revision {Revision}")]
    private partial void LogUnchanged(long revision);

    [LoggerMessage(1612, LogLevel.Error, "VM {Vm} at generation {Generation}: the control plane's digest does not match its own set; the set known before stays armed")]
    private partial void LogBadDigest(string vm, long generation);
}
