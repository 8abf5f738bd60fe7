using System.ComponentModel;
using System.Globalization;
using System.Security.Claims;
using Fleet.Api.Lists;
using Fleet.Api.OpenApi;
using Fleet.Api.Problems;
using Fleet.Api.Security;
using Fleet.Contracts.Changes;

namespace Fleet.Api.Changes;

public static class ChangeEndpoints
{
    private const string EventStream = "text/event-stream";
    private const string LastEventId = "Last-Event-ID";

    public static void MapChanges(this IEndpointRouteBuilder routes) =>
        routes.MapGet("/changes", GetAsync)
            .RequireAuthorization(Scopes.Read)
            .WithName("ListChanges")
            .WithTags("Changes")
            .WithSummary("The change log: everything that happened, in the order of its commits")
            .WithDescription(
                "As JSON: a page of changes, oldest first; `next` is null when it reaches the present. With `Accept: text/event-stream`: server-sent events, `change` for each change "
                + "and `bookmark` (everything up to its id that matches has been sent; also the keepalive); the id of each is its revision. Go on after a break with `Last-Event-ID` (or "
                + "`since`): no change is missed and none comes twice. Without either a stream starts at the present, and JSON at the oldest change that is kept. 410 `changes-gone`: the place is not "
                + "in the log any more (or the store was restored from a backup and never issued it): list the resources anew and go on from `revision`. A stream ends after about an hour, and with the token that opened it: when that is revoked or expires.")
            .Produces<ChangeList>(StatusCodes.Status200OK, "application/json", EventStream)
            .WithProblems(ProblemTypes.InvalidRequest, ProblemTypes.ChangesGone);

    private static async Task GetAsync(
        [AsParameters] ListQuery list,
        HttpContext http,
        ClaimsPrincipal user,
        ChangeReader reader,
        ChangeStream stream,
        CancellationToken cancellationToken,
        [Description("Only changes after this revision.")] string? since = null,
        [Description("Only changes of this resource, such as `vms/vm-1`.")] string? resource = null,
        [Description("Only changes of this kind, such as `pages.added`.")] string? kind = null)
    {
        var errors = new ValidationErrors();
        var limit = list.ReadLimit(errors);
        var isStream = http.Request.GetTypedHeaders().Accept.Any(type => type.MediaType.Equals(EventStream, StringComparison.OrdinalIgnoreCase));
        var place = Cursor.ReadNumber(list.After, errors) ?? ReadPlace(since, "since", errors);
        if (isStream && http.Request.Headers[LastEventId] is [{ Length: > 0 } last])
        {
            place = ReadPlace(last, LastEventId, errors);
        }

        if (errors.ToProblem() is { } invalid)
        {
            await invalid.WriteAsync(http);
            return;
        }

        var filter = new ChangeFilter(resource, kind, user.Has(Scopes.Admin));
        if (isStream)
        {
            place ??= (await reader.EndsAsync(cancellationToken)).Newest;
        }

        if (await reader.ReadAsync(place, filter, limit, cancellationToken) is not { } page)
        {
            var (newest, floor) = await reader.EndsAsync(cancellationToken);
            await new Problem(
                ProblemTypes.ChangesGone,
                FormattableString.Invariant($"Revision {place} is not in the log: it reaches from {floor} to {newest}."),
                Members: new Dictionary<string, object?> { ["floor"] = floor, ["revision"] = newest }).WriteAsync(http);
            return;
        }

        if (isStream)
        {
            await stream.RunAsync(http, place!.Value, page, filter);
            return;
        }

        var next = page.IsWhole ? null : Cursor.Of(page.Rows[^1].Revision);
        await TypedResults.Ok(new ChangeList(page.Rows, next, page.Newest, page.Floor)).ExecuteAsync(http);
    }

    private static long? ReadPlace(string? text, string name, ValidationErrors errors)
    {
        if (text is null)
        {
            return null;
        }

        if (long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var revision))
        {
            return revision;
        }

        errors.Add(name, "A revision: a whole number.");
        return null;
    }
}
