using Fleet.Api.Problems;
using Fleet.Contracts;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Restore;

/// <summary>
/// Whether an agent's request may be taken: it is of the process that claimed the host last, and the host has stated in the present
/// store epoch what it holds.
/// </summary>
internal sealed class Admission(StoreContexts contexts, StoreRestore restore)
{
    /// <summary>Within one view of the store.</summary>
    /// <param name="incarnation">Null where the request carries none.</param>
    /// <returns>Why it is refused; null when it is not.</returns>
    public static ProblemType? Judge(HostRow? row, long? incarnation, long counter) =>
        incarnation is { } shown && shown < (row?.Incarnation ?? 0) ? ProblemTypes.AgentSuperseded
        // An incarnation from the future is not superseded: its agent must claim again, not stop.
        : IsStatementRequired(row, counter) || incarnation > (row?.Incarnation ?? 0) ? ProblemTypes.StatementRequired
        : null;

    public static bool IsStatementRequired(HostRow? row, long counter) =>
        StoreEpochs.Of(counter) is > 0 and var epoch && row?.StatedEpoch != epoch;

    /// <summary>As above, on the store as it is now; for reads, and for requests that are kept in memory only.</summary>
    public async Task<Problem?> RefuseAsync(string host, long? incarnation, string actor, CancellationToken cancellationToken)
    {
        ProblemType? refused;
        await using (var snapshot = await contexts.OpenSnapshotAsync(cancellationToken))
        {
            refused = Judge(await snapshot.Db.Hosts.SingleOrDefaultAsync(row => row.Id == host, cancellationToken), incarnation, snapshot.Revision);
        }

        return refused == ProblemTypes.StatementRequired
            ? await SuspectAsync(new Shown(host, 0, incarnation, []), actor, cancellationToken) ?? new Problem(refused)
            : refused is null ? null : new Problem(refused);
    }

    /// <summary>For a request that shows what it should not: begins a new store epoch where that is due.</summary>
    /// <returns>Why it is refused; null where a second look finds nothing. It is within a command only where there is a proof to act on.</returns>
    public async Task<Problem?> SuspectAsync(Shown shown, string actor, CancellationToken cancellationToken)
    {
        await using (var snapshot = await contexts.OpenSnapshotAsync(cancellationToken))
        {
            if (shown.IsBeyondBelief(snapshot.Revision))
            {
                return BeyondBelief();
            }

            if (await shown.FindProofAsync(snapshot.Db, snapshot.Revision) is null)
            {
                return null;
            }
        }

        return await restore.BeginIfProvenAsync(shown, actor, cancellationToken) ? new Problem(ProblemTypes.StatementRequired) : null;
    }

    public static Problem BeyondBelief()
    {
        var errors = new ValidationErrors();
        errors.Add("$", "It carries a number of a store epoch that is too far ahead.");
        return errors.ToProblem()!;
    }
}
