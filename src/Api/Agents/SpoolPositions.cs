using Fleet.Api.Problems;
using Fleet.Contracts.Agents;
using Fleet.Data.Entities;
using Fleet.Data.Writing;

namespace Fleet.Api.Agents;

/// <summary>How far an agent says that its spool was answered.</summary>
internal static class SpoolPositions
{
    public static void Check(SpoolPosition? spool, ValidationErrors errors)
    {
        if (spool is not null && (!ReportValidator.IsSpoolId(spool.SpoolId) || spool.Applied < 0))
        {
            errors.Add("$.spool", "A spool id of 32 lower-case hexadecimal digits, and a sequence not below zero.");
        }
    }

    /// <summary>Reports go on from there: those before it are told of by the statement that this came with.</summary>
    public static async Task GoOnFromAsync(WriteScope scope, string host, SpoolPosition spool)
    {
        if (await scope.Db.Spools.FindAsync(host, spool.SpoolId) is not { } row)
        {
            row = new SpoolRow { Host = host, SpoolId = spool.SpoolId };
            scope.Db.Spools.Add(row);
        }

        row.LastSequence = Math.Max(row.LastSequence, spool.Applied);
    }
}
