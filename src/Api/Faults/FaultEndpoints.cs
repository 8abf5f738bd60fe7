using System.ComponentModel;
using System.Security.Claims;
using Fleet.Api.Lists;
using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Api.Security;
using Fleet.Contracts;
using Fleet.Contracts.Faults;
using Microsoft.AspNetCore.Http.HttpResults;

namespace Fleet.Api.Faults;

public static class FaultEndpoints
{
    private static readonly TimeSpan DefaultSpan = TimeSpan.FromDays(30);

    public static void MapFaults(this IEndpointRouteBuilder routes)
    {
        routes.MapGet("/faults", ListAsync)
            .RequireAuthorization(Scopes.Read)
            .WithName("ListFaults")
            .WithTags("Faults")
            .WithSummary("Memory errors of the hosts")
            .WithDescription(
                "Oldest first, one item for each host, DIMM, physical frame and kind, with a count. They stay with the host, whatever becomes of its VMs. "
                + "Physical addresses and serial numbers are shown only with the scope `read:hardware` besides.")
            .WithProblems(ProblemTypes.InvalidRequest);

        routes.MapGet("/faults/summary", SummarizeAsync)
            .RequireAuthorization(Scopes.Read)
            .WithName("SummarizeFaults")
            .WithTags("Faults")
            .WithSummary("Memory errors per host and DIMM over time: which hosts should be emptied?")
            .WithDescription(
                "The worst first: by uncorrected, then by corrected errors. An error counts in the hour in which it was seen last, a coalesced report as a whole. "
                + "Serial numbers are shown only with the scope `read:hardware` besides.")
            .WithProblems(ProblemTypes.InvalidRequest);
    }

    private static async Task<Results<Ok<ItemList<FaultResource>>, ProblemHttpResult>> ListAsync(
        [AsParameters] ListQuery list,
        ClaimsPrincipal user,
        FaultReader reader,
        CancellationToken cancellationToken,
        [Description("Only errors of this host.")] string? host = null,
        [Description("Only errors of DIMMs with this label or locator.")] string? dimm = null,
        [Description("Only errors whose last occurrence is not before this RFC 3339 time.")] string? since = null)
    {
        var errors = new ValidationErrors();
        var limit = list.ReadLimit(errors);
        var after = Cursor.ReadNumber(list.After, errors) ?? 0;
        CheckHost(host, errors);
        var sinceAt = ReadSince(since, errors);
        return errors.TryGetProblem(out var problem)
            ? problem.ToResult()
            : TypedResults.Ok(await reader.ListAsync(after, limit, host, dimm, sinceAt, user.Has(Scopes.ReadHardware), cancellationToken));
    }

    private static async Task<Results<Ok<FaultSummary>, ProblemHttpResult>> SummarizeAsync(
        ClaimsPrincipal user,
        FaultReader reader,
        TimeProvider time,
        CancellationToken cancellationToken,
        [Description("Only this host.")] string? host = null,
        [Description("Errors from this RFC 3339 time on, rounded down to a whole bucket; at most 1,000 buckets ago. 30 days ago when absent.")] string? since = null,
        [Description("Length of a bucket: `1h` or `1d`; `1d` when absent.")] string? bucket = null,
        [Description("Most items to answer with, 1 to 1000; 100 when absent.")] string? limit = null)
    {
        var errors = new ValidationErrors();
        var most = new ListQuery(null, limit).ReadLimit(errors);
        CheckHost(host, errors);
        if (bucket is not (null or FaultReader.Hour or FaultReader.Day))
        {
            errors.Add("bucket", "1h or 1d.");
        }

        var now = time.GetUtcNow();
        var sinceAt = ReadSince(since, errors) ?? (now - DefaultSpan).ToUnixTimeMilliseconds();
        if (now.ToUnixTimeMilliseconds() - sinceAt > FaultReader.MostBuckets * FaultReader.WidthOf(bucket ?? FaultReader.Day))
        {
            errors.Add("since", $"At most {FaultReader.MostBuckets} buckets ago.");
        }

        return errors.TryGetProblem(out var problem)
            ? problem.ToResult()
            : TypedResults.Ok(await reader.SummarizeAsync(sinceAt, bucket ?? FaultReader.Day, host, most, user.Has(Scopes.ReadHardware), cancellationToken));
    }

    private static void CheckHost(string? host, ValidationErrors errors)
    {
        if (host is not null && !ResourceId.IsValid(host))
        {
            errors.Add("host", $"An id of the form {ResourceId.Pattern}.");
        }
    }

    private static long? ReadSince(string? since, ValidationErrors errors)
    {
        if (since is null)
        {
            return null;
        }

        if (Times.TryParse(since, out var time))
        {
            return time.ToUnixTimeMilliseconds();
        }

        errors.Add("since", "An RFC 3339 time such as 2026-01-31T12:00:00Z.");
        return null;
    }
}
