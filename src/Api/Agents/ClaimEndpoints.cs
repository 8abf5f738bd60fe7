using System.Globalization;
using System.Security.Claims;
using System.Text.Json;
using Fleet.Api.Agents.Push;
using Fleet.Api.Hosts;
using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Api.Restore;
using Fleet.Api.Security;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Hosts;
using Fleet.Data.Entities;
using Fleet.Data.Writing;
using Microsoft.AspNetCore.Http.HttpResults;

namespace Fleet.Api.Agents;

public static class ClaimEndpoints
{
    private const string Contested =
        "Another agent process with this host's credential holds the host: was the state folder copied? Stop one of the two; if the wrong one holds it, revoke the credential and enrol the right one.";

    private const int MaximumText = 200;
    private const int MaximumCapabilities = 200;

    public static void MapClaim(this IEndpointRouteBuilder routes) =>
        routes.MapPost("/hosts/{host}/claim", ClaimAsync)
            .RequireOwnAgent()
            .WithName("ClaimHost")
            .WithTags("Agents")
            .WithSummary("Take over the host as a new agent process")
            .WithDescription("Every claim supersedes the one before: its streams end, its heartbeats and reports are refused with `agent-superseded`. "
                + "`highestSeen` and `lastIncarnation` from the future prove that the database was put back from a backup: then a new store epoch begins. "
                + "With `statementRequired` the agent promises that store epoch, durably, and states what it holds before anything else; "
                + "a host that was never heard of and shows nothing of a former life need not, once nothing is quarantined. "
                + "A claim that shows an older `lastIncarnation` than has been used is of another copy of the state folder; the second within 10 minutes makes the host "
                + "contested, and such claims are refused with `host-contested` and `Retry-After`, until the host is enrolled anew or one of the two is silent for 2 minutes.")
            .WithProblems(ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.MalformedBody, ProblemTypes.HostContested);

    private static async Task<Results<Ok<ClaimResult>, ProblemHttpResult>> ClaimAsync(
        string host,
        ClaimRequest request,
        ClaimsPrincipal user,
        StoreWriter writer,
        HttpContext http,
        Contests contests,
        StatusBoard board,
        PushHub hub,
        StoreRestore restore,
        ILogger<StatusBoard> logger,
        CancellationToken cancellationToken)
    {
        if (Validate(request) is { } invalid)
        {
            return invalid.ToResult();
        }

        var verdict = contests.Judge(host, request.LastIncarnation);
        if (verdict != ClaimVerdict.Admit)
        {
            if (verdict == ClaimVerdict.Began)
            {
                await BeginContestAsync(host, user.Actor(), writer, logger, cancellationToken);
            }

            http.Response.Headers.RetryAfter = Random.Shared.Next(5, 15).ToString(CultureInfo.InvariantCulture);
            return new Problem(ProblemTypes.HostContested, Contested).ToResult();
        }

        var outcome = await writer.ExecuteAsync(scope => TakeOverAsync(scope, host, request, user.Actor(), restore), cancellationToken);
        if (outcome.IsRefused)
        {
            return outcome.Problem.ToResult();
        }

        var (incarnation, statementRequired) = outcome.Value;
        board.Claim(host, incarnation);
        hub.EndOlder(host, incarnation);
        AgentLog.HostClaimed(logger, host, incarnation, request.AgentVersion, request.Kernel);
        return TypedResults.Ok(new ClaimResult(incarnation, DurationText.Format(board.Interval), StoreEpochs.Of(incarnation), statementRequired));
    }

    private static async Task BeginContestAsync(string host, string actor, StoreWriter writer, ILogger logger, CancellationToken cancellationToken)
    {
        var holder = await writer.ExecuteAsync(
            async scope =>
            {
                var row = (await scope.Db.Hosts.FindAsync(host))!;
                row.Version = scope.Change(ChangeKinds.HostContested, ChangeResources.Host(host), actor, Contests.Reason);
                return row.Incarnation ?? 0;
            },
            cancellationToken);
        AgentLog.HostContested(logger, host, holder);
    }

    private static async Task<Outcome<Claimed>> TakeOverAsync(WriteScope scope, string host, ClaimRequest request, string actor, StoreRestore restore)
    {
        var shown = new Shown(host, request.HighestSeen, request.LastIncarnation, []) { Spool = request.Spool };
        if (shown.IsBeyondBelief(scope.Revision))
        {
            return Admission.BeyondBelief();
        }

        if (await shown.FindProofAsync(scope.Db, scope.Revision) is { } proof)
        {
            await restore.BeginAsync(scope, StoreEpochs.Of(shown.Highest), actor, proof);
        }

        await HostRows.EnsureAsync(scope, host, actor);
        var row = (await scope.Db.Hosts.FindAsync(host))!;
        if (await Quarantine.HasNothingToStateAsync(scope, row, shown))
        {
            row.StatedEpoch = StoreEpochs.Of(scope.Revision);
        }

        var capabilities = JsonSerializer.Serialize(request.Capabilities, FleetJson.Default.IReadOnlyDictionaryStringString);
        var revision = scope.Change(ChangeKinds.HostClaimed, ChangeResources.Host(host), actor, payload: capabilities);
        row.Incarnation = revision;
        row.BootId = request.BootId;
        row.AgentVersion = request.AgentVersion;
        row.Kernel = request.Kernel;
        row.Capabilities = capabilities;
        row.State = HostStates.Online;
        row.LastSeenAt = scope.Now;
        row.Version = revision;
        return new Claimed(revision, Admission.IsStatementRequired(row, revision));
    }

    private static Problem? Validate(ClaimRequest request)
    {
        var errors = new ValidationErrors();
        CheckText(request.BootId, "$.bootId", errors);
        CheckText(request.AgentVersion, "$.agentVersion", errors);
        CheckText(request.Kernel, "$.kernel", errors);
        if (request.HighestSeen < 0 || request.LastIncarnation < 0)
        {
            errors.Add("$.highestSeen", "Not below zero.");
        }

        SpoolPositions.Check(request.Spool, errors);
        if (request.Capabilities.Count > MaximumCapabilities)
        {
            errors.Add("$.capabilities", $"At most {MaximumCapabilities}.");
        }

        foreach (var (name, value) in request.Capabilities.Take(MaximumCapabilities))
        {
            if (name.Length is 0 or > 64 || value is null || value.Length > MaximumText || HasControls(name) || HasControls(value))
            {
                errors.Add("$.capabilities", "Names of 1 to 64 characters and values of at most 200, no control characters.");
            }
        }

        return errors.ToProblem();
    }

    private static void CheckText(string text, string path, ValidationErrors errors)
    {
        if (text.Length is 0 or > MaximumText || HasControls(text))
        {
            errors.Add(path, $"1 to {MaximumText} characters, no control characters.");
        }
    }

    private static bool HasControls(string text) => text.Any(char.IsControl);

    private readonly record struct Claimed(long Incarnation, bool StatementRequired);
}
