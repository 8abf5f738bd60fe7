using Fleet.Api.Lists;
using Fleet.Api.Problems;
using Fleet.Data.Entities;
using Fleet.Data.Writing;

namespace Fleet.Api.Hosts;

/// <summary>Commands of the writer on what an operator says of a host. Repeating one changes nothing.</summary>
internal static class HostCommands
{
    public static async Task<Outcome<Done>> DrainAsync(WriteScope scope, string host, bool drained, string? reason, string actor, IfMatch ifMatch)
    {
        var found = await FindAsync(scope, host, ifMatch);
        if (!found.IsRefused && found.Value.Drained != drained)
        {
            var kind = drained ? ChangeKinds.HostDrained : ChangeKinds.HostUndrained;
            found.Value.Version = scope.Change(kind, ChangeResources.Host(host), actor, reason);
            found.Value.Drained = drained;
        }

        return found.IsRefused ? found.Problem : new Done();
    }

    /// <param name="labels">As <see cref="HostLabels.ToJson"/> writes them; they replace all that were there.</param>
    public static async Task<Outcome<Done>> LabelAsync(WriteScope scope, string host, string labels, string actor, IfMatch ifMatch)
    {
        var found = await FindAsync(scope, host, ifMatch);
        if (!found.IsRefused && found.Value.Labels != labels)
        {
            found.Value.Version = scope.Change(ChangeKinds.HostLabelled, ChangeResources.Host(host), actor, payload: labels);
            found.Value.Labels = labels;
        }

        return found.IsRefused ? found.Problem : new Done();
    }

    private static async Task<Outcome<HostRow>> FindAsync(WriteScope scope, string host, IfMatch ifMatch) =>
        await scope.Db.Hosts.FindAsync(host) is not { } row ? ProblemTypes.HostNotFound
        : ifMatch.Matches(row.Version) ? row
        : ProblemTypes.Stale;
}
