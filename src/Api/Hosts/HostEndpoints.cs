using System.Text.Json;
using Fleet.Api.Agents;
using Fleet.Api.Lists;
using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Api.Security;
using Fleet.Contracts;
using Fleet.Contracts.Hosts;
using Fleet.Data;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Hosts;

public static class HostEndpoints
{
    public static void MapHosts(this IEndpointRouteBuilder routes)
    {
        routes.MapGet("/hosts", ListAsync)
            .RequireAuthorization(Scopes.Read)
            .WithName("ListHosts")
            .WithTags("Hosts")
            .WithSummary("The known hosts")
            .WithProblems(ProblemTypes.InvalidRequest);

        routes.MapGet("/hosts/{host}", GetAsync)
            .RequireAuthorization(Scopes.Read)
            .WithName("GetHost")
            .WithTags("Hosts")
            .WithSummary("One host")
            .WithProblems(ProblemTypes.InvalidId, ProblemTypes.HostNotFound);
    }

    private static async Task<Results<Ok<ItemList<HostResource>>, ProblemHttpResult>> ListAsync(
        [AsParameters] ListQuery list, StoreContexts contexts, StatusBoard board, CancellationToken cancellationToken)
    {
        var errors = new ValidationErrors();
        var limit = list.ReadLimit(errors);
        var after = Cursor.ReadText(list.After, errors) ?? string.Empty;
        if (errors.TryGetProblem(out var problem))
        {
            return problem.ToResult();
        }

        await using var db = contexts.OpenReader();
        var hosts = db.Hosts.Where(row => row.Id.CompareTo(after) > 0).OrderBy(row => row.Id).Take(limit + 1);
        var rows = await WithVms(db, hosts).ToListAsync(cancellationToken);
        var next = rows.Count > limit ? Cursor.Of(rows[limit - 1].Row.Id) : null;
        return TypedResults.Ok(new ItemList<HostResource>([.. rows.Take(limit).Select(item => ToResource(item, board))], next));
    }

    private static async Task<Results<Ok<HostResource>, ProblemHttpResult>> GetAsync(
        string host, StoreContexts contexts, StatusBoard board, CancellationToken cancellationToken)
    {
        await using var db = contexts.OpenReader();
        return await WithVms(db, db.Hosts.Where(row => row.Id == host)).SingleOrDefaultAsync(cancellationToken) is { } item
            ? TypedResults.Ok(ToResource(item, board))
            : new Problem(ProblemTypes.HostNotFound).ToResult();
    }

    private static IQueryable<HostWithVms> WithVms(FleetDbContext db, IQueryable<HostRow> hosts) =>
        hosts.Select(row => new HostWithVms(row, db.Vms.Count(vm => vm.Host == row.Id)));

    private static HostResource ToResource(HostWithVms item, StatusBoard board)
    {
        var row = item.Row;
        return new HostResource(
            row.Id,
            row.Incarnation is null ? HostStates.Offline : board.StateOf(row.Id),
            row.Incarnation,
            row.AgentVersion,
            row.Kernel,
            row.Capabilities is null ? null : JsonSerializer.Deserialize(row.Capabilities, FleetJson.Default.IReadOnlyDictionaryStringString),
            (board.HeardAt(row.Id) ?? row.LastSeenAt)?.ToTime(),
            JsonSerializer.Deserialize(row.Labels, FleetJson.Default.IReadOnlyDictionaryStringString)!,
            row.Drained,
            item.Vms);
    }

    private sealed record HostWithVms(HostRow Row, int Vms);
}
