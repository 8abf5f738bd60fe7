using Fleet.Api.Problems;
using Fleet.Contracts;

namespace Fleet.Api.OpenApi;

/// <summary>The problems an operation may answer with, besides those that every operation may.</summary>
public sealed record ProblemMetadata(IReadOnlyList<ProblemType> Types);

public static class ProblemConventions
{
    public static RouteHandlerBuilder WithProblems(this RouteHandlerBuilder builder, params ProblemType[] types)
    {
        foreach (var status in types.Select(type => type.Status).Distinct())
        {
            builder.Produces<ProblemBody>(status, "application/problem+json");
        }

        return builder.WithMetadata(new ProblemMetadata(types));
    }
}
