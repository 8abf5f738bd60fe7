using System.ComponentModel;
using System.Globalization;
using System.Security.Claims;
using Fleet.Api.Agents.Push;
using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Api.Restore;
using Fleet.Api.Security;
using Fleet.Contracts.Agents;
using Fleet.Data.Storage;
using Microsoft.AspNetCore.Http.HttpResults;

namespace Fleet.Api.Agents;

public static class DesiredEndpoints
{
    public static void MapDesired(this IEndpointRouteBuilder routes)
    {
        routes.MapGet("/hosts/{host}/desired", StreamAsync)
            .RequireOwnAgent()
            .WithName("StreamDesiredState")
            .WithTags("Agents")
            .WithSummary("Stream the host's desired state")
            .WithDescription(
                "Server-sent events. First a snapshot that replaces what the agent knows: `snapshot-begin`, a `vm` for each VM, `snapshot-end`. "
                + "Then `delta` (applies only where `from` is the local generation; else fetch the VM), `vm` (replaces one VM), `vm-removed` "
                + "(it no longer concerns this host; absence never disarms) and `bookmark` (keepalive). The data of each is a JSON object, its id the revision it was read at. "
                + "Where `holds` tells exactly what the snapshot would, one `unchanged` {revision, digest} comes in its place. "
                + "The stream ends when a newer agent process claims the host, after about an hour, when its client does not read, and when the server stops: "
                + "open another after the last `retry`, which then spreads the agents out. About every `Fleet-Bookmark-Interval` (a header) something comes; "
                + "a stream that is silent for several of these is dead. 503 with `Retry-After`: too many streams are being opened.")
            .Produces<string>(StatusCodes.Status200OK, "text/event-stream")
            .WithProblems(ProblemTypes.InvalidId, ProblemTypes.InvalidRequest, ProblemTypes.AgentSuperseded, ProblemTypes.StatementRequired,
                ProblemTypes.SnapshotsBusy);

        routes.MapGet("/hosts/{host}/desired/{vm}", GetAsync)
            .RequireOwnAgent()
            .WithName("GetDesiredVm")
            .WithTags("Agents")
            .WithSummary("The desired state of one VM, whole")
            .WithProblems(ProblemTypes.InvalidId, ProblemTypes.UnknownVm, ProblemTypes.StatementRequired);
    }

    private static async Task StreamAsync(
        string host,
        [Description("As the claim answered.")] string? incarnation,
        [Description("What the agent holds: SHA-256, in lower-case hex, over the JSON of each VM's desired state and a line feed, by id. Left out: a snapshot.")] string? holds,
        HttpContext http,
        PushHub hub,
        Admission admission,
        DesiredStream stream)
    {
        var errors = new ValidationErrors();
        if (!long.TryParse(incarnation, NumberStyles.None, CultureInfo.InvariantCulture, out var number))
        {
            errors.Add("incarnation", "The number that the claim answered.");
        }

        if (holds is not null && !DesiredDigest.IsValid(holds))
        {
            errors.Add("holds", "64 hexadecimal digits, in lower case.");
        }

        if (errors.TryGetProblem(out var invalid))
        {
            await invalid.WriteAsync(http);
            return;
        }

        // Subscribed before it is checked: a claim in between then finds this stream and ends it.
        var subscriber = hub.Subscribe(host, number);
        try
        {
            if (await admission.RefuseAsync(host, number, http.User.Actor(), http.RequestAborted) is { } refused)
            {
                await refused.WriteAsync(http);
                return;
            }

            hub.EndOthers(subscriber);
            await stream.RunAsync(subscriber, holds, http);
        }
        finally
        {
            hub.Unsubscribe(subscriber);
        }
    }

    private static async Task<Results<Ok<DesiredVm>, ProblemHttpResult>> GetAsync(
        string host, string vm, ClaimsPrincipal user, StoreContexts contexts, DesiredReader reader, Admission admission, CancellationToken cancellationToken)
    {
        if (await admission.RefuseAsync(host, null, user.Actor(), cancellationToken) is { } refused)
        {
            return refused.ToResult();
        }

        await using var snapshot = await contexts.OpenSnapshotAsync(cancellationToken);
        return await DesiredReader.FindAsync(snapshot, host, vm, cancellationToken) is { } row
            ? TypedResults.Ok(await reader.ReadAsync(snapshot, row, host, cancellationToken))
            : new Problem(ProblemTypes.UnknownVm).ToResult();
    }
}
