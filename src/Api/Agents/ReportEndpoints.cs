using System.Security.Claims;
using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Api.Restore;
using Fleet.Api.Security;
using Fleet.Contracts.Agents;
using Fleet.Data.Writing;
using Microsoft.AspNetCore.Http.HttpResults;

namespace Fleet.Api.Agents;

public static class ReportEndpoints
{
    /// <summary>A hostile request must not fill the log.</summary>
    private const int MostNamed = 10;

    public static void MapReports(this IEndpointRouteBuilder routes) =>
        routes.MapPost("/hosts/{host}/reports", ReportAsync)
            .RequireOwnAgent()
            .WithName("SendReports")
            .WithTags("Agents")
            .WithSummary("Hand over the head of the agent's spool")
            .WithDescription(
                "Applied strictly in sequence; 2xx means durable. Sequences that were applied before are replays and change nothing. "
                + "A gap is refused with `spool-gap`, whose member `expected` is the sequence to go on from. "
                + "Reports that can never be applied are named in `rejected`, and the sequence moves on over them; so are those whose content is wrong, "
                + "with the code `malformed-report`. Of `firstAt` and `lastAt` the smaller counts as the first. "
                + "`acks` are applied after the reports, and may grant a migration in the same transaction; a malformed one counts for nothing. "
                + "The text of `obstacles` is cut to what can be shown.")
            .WithMetadata(new RequestSizeLimit(16 * 1024 * 1024))
            .WithProblems(
                ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody, ProblemTypes.AgentSuperseded, ProblemTypes.SpoolGap,
                ProblemTypes.StatementRequired);

    private static async Task<Results<Ok<ReportsResult>, ProblemHttpResult>> ReportAsync(
        string host,
        ReportsRequest request,
        ClaimsPrincipal user,
        StoreWriter writer,
        Admission admission,
        ILogger<StatusBoard> logger,
        CancellationToken cancellationToken)
    {
        if (ReportValidator.Validate(request) is { } invalid)
        {
            return invalid.ToResult();
        }

        request = Sift(host, request, logger);
        var actor = user.Actor();
        var outcome = await writer.ExecuteAsync(scope => ReportCommand.ApplyAsync(scope, host, request, actor), cancellationToken);
        if (outcome.IsRefused)
        {
            var refused = outcome.Problem.Type == ProblemTypes.StatementRequired
                ? await admission.SuspectAsync(ReportCommand.ShownBy(host, request), actor, cancellationToken)
                : null;
            return (refused ?? outcome.Problem).ToResult();
        }

        if (outcome.Value.Rejected is [var first, ..] rejected)
        {
            AgentLog.ReportsRejected(logger, rejected.Count, host, request.SpoolId, first.Sequence, first.Code);
            foreach (var item in rejected.Where(item => item.Code == ReportContent.Malformed).Take(MostNamed))
            {
                var report = request.Reports[(int)(item.Sequence - request.Reports[0].Sequence)];
                AgentLog.ReportMalformed(logger, item.Sequence, host, request.SpoolId, ReportContent.FindWrong(report)!);
            }
        }

        return TypedResults.Ok(outcome.Value);
    }

    /// <summary>What is not spooled is said again by an agent that still means it: a malformed acknowledgement is left out.</summary>
    private static ReportsRequest Sift(string host, ReportsRequest request, ILogger logger)
    {
        var judged = (request.Acks ?? []).Select(ack => (Ack: ack, Wrong: ReportContent.FindWrong(ack))).ToList();
        foreach (var (_, wrong) in judged.Where(item => item.Wrong is not null).Take(MostNamed))
        {
            AgentLog.AckMalformed(logger, host, wrong!);
        }

        return request with
        {
            Acks = [.. judged.Where(item => item.Wrong is null).Select(item => item.Ack)],
            Obstacles = request.Obstacles is { } obstacles ? [.. obstacles.Select(ReportContent.Cut)] : null,
        };
    }
}
