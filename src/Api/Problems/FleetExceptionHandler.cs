using System.Text.Json;
using Fleet.Data.Writing;
using Microsoft.AspNetCore.Diagnostics;

namespace Fleet.Api.Problems;

/// <summary>Turns what was thrown into a problem of the catalogue. Exception text never reaches a client.</summary>
public sealed class FleetExceptionHandler(ILogger<FleetExceptionHandler> logger) : IExceptionHandler
{
    public async ValueTask<bool> TryHandleAsync(HttpContext httpContext, Exception exception, CancellationToken cancellationToken)
    {
        if (exception is OperationCanceledException && httpContext.RequestAborted.IsCancellationRequested)
        {
            httpContext.Response.StatusCode = StatusCodes.Status499ClientClosedRequest;
            return true;
        }

        await ToProblem(httpContext, exception).WriteAsync(httpContext);
        return true;
    }

    private Problem ToProblem(HttpContext context, Exception exception)
    {
        switch (exception)
        {
            case BadHttpRequestException bad:
                return FromBadRequest(bad);
            case StoreWriteException:
                context.Response.Headers.RetryAfter = "1";
                return new Problem(ProblemTypes.StoreUnavailable);
            default:
                ProblemLog.Unhandled(logger, exception);
                return new Problem(ProblemTypes.Internal);
        }
    }

    private static Problem FromBadRequest(BadHttpRequestException exception)
    {
        if (exception.StatusCode != StatusCodes.Status400BadRequest)
        {
            return new Problem(ProblemTypes.ForStatus(exception.StatusCode));
        }

        if (exception.InnerException is not JsonException json)
        {
            return new Problem(ProblemTypes.MalformedBody, "A body or a parameter is missing, cut short or of the wrong form.");
        }

        var path = string.IsNullOrEmpty(json.Path) ? "$" : json.Path;
        var message = $"Not what is expected here (line {json.LineNumber + 1}, byte {json.BytePositionInLine}): "
            + "not JSON, a member that is missing, unknown or given twice, or a value of the wrong type or size.";
        return new Problem(ProblemTypes.MalformedBody, "See errors.", new Dictionary<string, string[]> { [path] = [message] });
    }
}
