using Microsoft.AspNetCore.Http.HttpResults;

namespace Fleet.Api.Security;

/// <summary>Sees the refusals that endpoints answer with themselves; those of the authorization come from <see cref="BearerHandler"/>.</summary>
public sealed class RefusalFilter(Refusals refusals) : IEndpointFilter
{
    public async ValueTask<object?> InvokeAsync(EndpointFilterInvocationContext context, EndpointFilterDelegate next)
    {
        var result = await next(context);
        var inner = result is INestedHttpResult nested ? nested.Result : result;
        if (inner is ProblemHttpResult problem && problem.ProblemDetails.Extensions.TryGetValue("code", out var code) && code is string text)
        {
            refusals.AddIfAudited(context.HttpContext, text);
        }

        return result;
    }
}
