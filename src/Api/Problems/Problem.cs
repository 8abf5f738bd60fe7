using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.AspNetCore.Mvc;

namespace Fleet.Api.Problems;

/// <summary>An expected outcome that is not success; a value, not an exception.</summary>
/// <param name="Errors">JSON path or parameter name to messages, for validation.</param>
public sealed record Problem(
    ProblemType Type,
    string? Detail = null,
    IReadOnlyDictionary<string, string[]>? Errors = null,
    IReadOnlyDictionary<string, object?>? Members = null)
{
    public ProblemHttpResult ToResult() => TypedResults.Problem(ToDetails());

    /// <summary>For a problem that the pipeline found, outside any endpoint.</summary>
    public Task WriteAsync(HttpContext context)
    {
        context.Response.StatusCode = Type.Status;
        return ToResult().ExecuteAsync(context);
    }

    private ProblemDetails ToDetails()
    {
        var details = new ProblemDetails
        {
            Type = $"urn:fleet:problem:{Type.Code}",
            Title = Type.Title,
            Status = Type.Status,
            Detail = Detail,
        };
        details.Extensions["code"] = Type.Code;
        if (Errors is not null)
        {
            details.Extensions["errors"] = Errors;
        }

        foreach (var (name, value) in Members ?? new Dictionary<string, object?>())
        {
            details.Extensions[name] = value;
        }

        return details;
    }
}
