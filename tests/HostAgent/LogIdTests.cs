using System.Reflection;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Tests;

public sealed class LogIdTests
{
    /// <summary>Operators filter by event id: one that means two things hides one of them.</summary>
    [Fact]
    public void LoggerMessages_OfTheAgent_HaveAnIdEach()
    {
        var messages = typeof(AgentHost).Assembly.GetTypes()
            .SelectMany(type => type.GetMethods(BindingFlags.Static | BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly))
            .Select(method => (Name: $"{method.DeclaringType!.Name}.{method.Name}", method.GetCustomAttribute<LoggerMessageAttribute>()?.EventId))
            .Where(message => message.EventId is not null)
            .ToList();

        Assert.True(messages.Count > 40, $"only {messages.Count} messages were found");
        Assert.Empty(messages.GroupBy(message => message.EventId).Where(group => group.Count() > 1)
            .Select(group => $"{group.Key}: {string.Join(", ", group.Select(message => message.Name))}"));
    }
}
