using System.ComponentModel;
using Fleet.Api.Lists;
using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Api.Security;
using Fleet.Contracts;
using Fleet.Contracts.Hits;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Hits;

public static class HitEndpoints
{
    public static void MapHits(this IEndpointRouteBuilder routes) =>
        routes.MapGet("/hits", ListAsync)
            .RequireAuthorization(Scopes.Read)
            .WithName("ListHits")
            .WithTags("Hits")
            .WithSummary("Intercepted accesses to poisoned pages")
            .WithDescription("Oldest first. Repeated accesses that agree in everything but time are one item with a count.")
            .WithProblems(ProblemTypes.InvalidRequest);

    private static async Task<Results<Ok<ItemList<HitResource>>, ProblemHttpResult>> ListAsync(
        [AsParameters] ListQuery list,
        StoreContexts contexts,
        CancellationToken cancellationToken,
        [Description("Only hits of this VM.")] string? vm = null,
        [Description("Only hits on this host.")] string? host = null,
        [Description("Only hits whose last access is not before this RFC 3339 time.")] string? since = null)
    {
        var errors = new ValidationErrors();
        var limit = list.ReadLimit(errors);
        var after = Cursor.ReadNumber(list.After, errors) ?? 0;
        CheckId(vm, "vm", errors);
        CheckId(host, "host", errors);
        if (!Times.TryParse(since, out var sinceTime) && since is not null)
        {
            errors.Add("since", "An RFC 3339 time such as 2026-01-31T12:00:00Z.");
        }

        if (errors.TryGetProblem(out var problem))
        {
            return problem.ToResult();
        }

        await using var db = contexts.OpenReader();
        var hits = db.Hits.Where(row => row.Id > after);
        hits = vm is null ? hits : hits.Where(row => row.Vm == vm);
        hits = host is null ? hits : hits.Where(row => row.Host == host);
        if (since is not null)
        {
            var sinceAt = sinceTime.ToUnixTimeMilliseconds();
            hits = hits.Where(row => row.LastAt >= sinceAt);
        }

        var rows = await hits.OrderBy(row => row.Id).Take(limit + 1).ToListAsync(cancellationToken);
        var next = rows.Count > limit ? Cursor.Of(rows[limit - 1].Id) : null;
        return TypedResults.Ok(new ItemList<HitResource>([.. rows.Take(limit).Select(ToResource)], next));
    }

    private static void CheckId(string? id, string name, ValidationErrors errors)
    {
        if (id is not null && !ResourceId.IsValid(id))
        {
            errors.Add(name, $"An id of the form {ResourceId.Pattern}.");
        }
    }

    private static HitResource ToResource(HitRow row) => new(
        row.Id,
        row.Vm,
        row.MemoryInstance,
        row.Frame,
        HexAddress.Format(FrameMath.AddressOf(row.Frame)),
        row.Host,
        row.PlacementEpoch,
        row.FirstAt.ToTime(),
        row.LastAt.ToTime(),
        row.Count,
        row.Access,
        row.Vcpu,
        row.Evidence,
        row.Outcome);
}
