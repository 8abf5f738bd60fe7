using System.Reflection;

namespace Fleet.Tests.Shared;

/// <summary>Operators filter by event id: one that means two things hides one of them.</summary>
internal static class LogIds
{
    /// <summary>Asserts that no two messages of a program have one id.</summary>
    public static void AreUnique(int atLeast, params Assembly[] assemblies)
    {
        var messages = assemblies.SelectMany(assembly => assembly.GetTypes())
            .SelectMany(type => type.GetMethods(BindingFlags.Static | BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly))
            .Select(method => (Name: $"{method.DeclaringType!.Name}.{method.Name}", EventId: EventIdOf(method)))
            .Where(message => message.EventId is not null)
            .ToList();

        Assert.True(messages.Count >= atLeast, $"only {messages.Count} messages were found");
        Assert.Empty(messages.GroupBy(message => message.EventId).Where(group => group.Count() > 1)
            .Select(group => $"{group.Key}: {string.Join(", ", group.Select(message => message.Name))}"));
    }

    // By name: not every project of tests has the package of the attribute.
    private static object? EventIdOf(MethodInfo method) =>
        method.CustomAttributes.FirstOrDefault(attribute => attribute.AttributeType.Name == "LoggerMessageAttribute")?.ConstructorArguments[0].Value;
}
