using Microsoft.AspNetCore.Authorization;

namespace Fleet.Api.Security;

/// <summary>Marks the routes of a host's own agent: only a credential bound to the host in the path may call them (I7).</summary>
public sealed class AgentRoute;

public sealed class OwnHostRequirement : AuthorizationHandler<OwnHostRequirement>, IAuthorizationRequirement
{
    protected override Task HandleRequirementAsync(AuthorizationHandlerContext context, OwnHostRequirement requirement)
    {
        if (context.Resource is HttpContext http
            && context.User.Has(Scopes.Agent)
            && context.User.AgentHost() is { } own
            && http.GetRouteValue("host") is string host
            && string.Equals(own, host, StringComparison.Ordinal))
        {
            context.Succeed(requirement);
        }

        return Task.CompletedTask;
    }
}

public static class AgentRouteConventions
{
    public static TBuilder RequireOwnAgent<TBuilder>(this TBuilder builder)
        where TBuilder : IEndpointConventionBuilder =>
        builder.RequireAuthorization(Scopes.Agent).WithMetadata(new AgentRoute());
}
