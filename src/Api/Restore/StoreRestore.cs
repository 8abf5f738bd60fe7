using System.Text.Json;
using Fleet.Api.Migrations;
using Fleet.Contracts;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Vms;
using Fleet.Data.Entities;
using Fleet.Data.Placement;
using Fleet.Data.Storage;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Restore;

/// <summary>
/// Begins a new store epoch (GATE.md, "Restore from backup"): every number that was ever issued is below its first one, every VM is
/// quarantined, and nobody is believed but hosts that state anew what they hold.
/// </summary>
internal sealed class StoreRestore(StoreWriter writer, IOptions<StoreOptions> store, ILogger<StoreRestore> logger)
{
    public const string Reason = "store-restored";

    /// <summary>Within a command of the writer.</summary>
    /// <param name="seen">Highest store epoch that anybody showed.</param>
    public async Task<long> BeginAsync(WriteScope scope, long seen, string actor, string evidence)
    {
        var from = StoreEpoch.Of(scope.Revision);
        var epoch = StoreEpoch.Begin(scope, store.Value, seen);
        var revision = scope.Change(
            ChangeKinds.StoreRestored, ChangeResources.Store, actor, evidence, JsonSerializer.Serialize(new StoreEpochChange(from, epoch), RestoreJson.Default.StoreEpochChange));
        await scope.Db.Statements.ExecuteDeleteAsync();
        foreach (var migration in await scope.Db.Migrations.Where(MigrationRow.Active).ToListAsync())
        {
            migration.State = MigrationStates.Failed;
            migration.Reasons = MigrationColumns.ToJson([new GateReason(Reason)]);
            migration.Version = revision;
            scope.Touch(migration.SourceHost, migration.Vm);
            scope.Touch(migration.TargetHost, migration.Vm);
        }

        // Set by set, not row by row: the server does not listen before this is done, and there may be 100,000 VMs.
        await scope.Db.Vms.ExecuteUpdateAsync(set => set
            .SetProperty(row => row.Quarantined, true)
            .SetProperty(row => row.QuarantineReason, QuarantineReasons.AwaitingStatements)

            // Whether it was done since the backup nobody knows; who still wants it asks again.
            .SetProperty(row => row.ResetWanted, false)
            .SetProperty(row => row.Generation, revision));
        await PlacementHistory.RenewAllAsync(scope, revision);
        RestoreLog.Begun(logger, evidence, epoch);
        return epoch;
    }

    /// <summary>Begins a new store epoch if what an agent shows proves that the database was put back; looked at again in that transaction.</summary>
    public Task<bool> BeginIfProvenAsync(Shown shown, string actor, CancellationToken cancellationToken) =>
        writer.ExecuteAsync(
            async scope =>
            {
                if (await shown.FindProofAsync(scope.Db, scope.Revision) is not { } proof)
                {
                    return false;
                }

                await BeginAsync(scope, StoreEpochs.Of(shown.Highest), actor, proof);
                return true;
            },
            cancellationToken);
}

/// <summary>Payload of <see cref="ChangeKinds.StoreRestored"/>.</summary>
internal sealed record StoreEpochChange(long From, long To);
