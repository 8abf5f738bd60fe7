using Fleet.Api.Problems;
using Fleet.Contracts;

namespace Fleet.Api.Startup;

/// <summary>Checks the ids in the path once, for every route.</summary>
public sealed class IdFilter : IEndpointFilter
{
    private static readonly string[] Names = ["vm", "host", "migration"];

    public async ValueTask<object?> InvokeAsync(EndpointFilterInvocationContext context, EndpointFilterDelegate next)
    {
        var errors = new ValidationErrors();
        foreach (var name in Names)
        {
            if (context.HttpContext.GetRouteValue(name) is string id && !ResourceId.IsValid(id))
            {
                errors.Add(name, $"An id has the form {ResourceId.Pattern}.", ProblemTypes.InvalidId);
            }
        }

        return errors.TryGetProblem(out var problem) ? problem.ToResult() : await next(context);
    }
}
